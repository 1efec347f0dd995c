#include "bind.h"

namespace aquila::text {

void bind_features(pybind11::module_&) {}

}  // namespace aquila::text
