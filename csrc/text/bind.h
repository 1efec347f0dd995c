// One function per file that has something to bind.
#pragma once

#include <pybind11/pybind11.h>

namespace aquila::text {

void bind_features(pybind11::module_& module);
void bind_ngrams(pybind11::module_& module);

}  // namespace aquila::text
