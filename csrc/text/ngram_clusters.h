// Union-find over ordinals of documents, in an array that the caller owns (it may be a mapped file).
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

namespace aquila::text {

using Ordinals = pybind11::array_t<std::uint64_t, pybind11::array::c_style>;

// The least ordinal of each one's cluster. parents: [N], parents[i] <= i; shortened on the way.
Ordinals find_roots(Ordinals parents, const Ordinals& ordinals);

// Joins the clusters of left[k] and right[k]; the root is the least ordinal.
void unite(Ordinals parents, const Ordinals& left, const Ordinals& right);

}  // namespace aquila::text
