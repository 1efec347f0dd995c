#include "ngram_clusters.h"

#include <utility>

namespace aquila::text {
namespace {

std::uint64_t root(std::uint64_t* parents, std::uint64_t i) {
    while (parents[i] != i) {
        parents[i] = parents[parents[i]];  // path halving
        i = parents[i];
    }
    return i;
}

void check(const Ordinals& parents, const Ordinals& ordinals) {
    const std::uint64_t count = static_cast<std::uint64_t>(parents.size());
    const std::uint64_t* values = ordinals.data();
    for (pybind11::ssize_t k = 0; k < ordinals.size(); ++k)
        if (values[k] >= count) throw pybind11::index_error("an ordinal is not below the number of documents");
}

}  // namespace

Ordinals find_roots(Ordinals parents, const Ordinals& ordinals) {
    check(parents, ordinals);
    Ordinals roots(ordinals.size());
    std::uint64_t* parent = parents.mutable_data();
    std::uint64_t* out = roots.mutable_data();
    for (pybind11::ssize_t k = 0; k < ordinals.size(); ++k) out[k] = root(parent, ordinals.data()[k]);
    return roots;
}

void unite(Ordinals parents, const Ordinals& left, const Ordinals& right) {
    if (left.size() != right.size()) throw pybind11::value_error("left and right must have the same length");
    check(parents, left);
    check(parents, right);
    std::uint64_t* parent = parents.mutable_data();
    for (pybind11::ssize_t k = 0; k < left.size(); ++k) {
        std::uint64_t a = root(parent, left.data()[k]);
        std::uint64_t b = root(parent, right.data()[k]);
        if (a > b) std::swap(a, b);
        parent[b] = a;
    }
}

}  // namespace aquila::text
