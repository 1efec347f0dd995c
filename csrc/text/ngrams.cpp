#include "bind.h"

namespace aquila::text {

void bind_ngrams(pybind11::module_&) {}

}  // namespace aquila::text
