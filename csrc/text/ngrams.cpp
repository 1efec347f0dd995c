// The Python face of the n-gram kernels.

#include <memory>
#include <tuple>

#include "bind.h"
#include "ngram_clusters.h"
#include "ngram_index.h"
#include "ngram_signatures.h"
#include "ngram_tokens.h"

namespace aquila::text {

namespace py = pybind11;
using namespace py::literals;

void bind_ngrams(py::module_& module) {
    py::class_<Folding>(module, "Folding").def(py::init<const Folding::Table&, const Folding::Table&>(), "entries"_a, "pool"_a);
    module.def(
        "fold",
        [](const Folding& folding, const py::str& text, bool join_numbers) {
            Folded folded;
            fold(folding, text, join_numbers, folded);
            return py::make_tuple(py::array_t<std::uint32_t>(folded.characters.size(), folded.characters.data()),
                                  py::array_t<std::uint32_t>(folded.places.size(), folded.places.data()),
                                  py::array_t<std::uint32_t>(folded.words.size(), folded.words.data()));
        },
        "folding"_a, "text"_a, "join_numbers"_a = false);
    py::class_<Signer>(module, "Signer")
        .def(py::init<const Folding&, std::size_t, std::size_t, std::size_t, std::uint64_t, std::size_t, std::size_t, bool>(),
             py::keep_alive<1, 2>(), "folding"_a, py::kw_only(), "bands"_a, "rows"_a, "sketch_bins"_a, "seed"_a,
             "characters"_a, "words"_a, "join_numbers"_a)
        .def("sign", &Signer::sign, "texts"_a, "units"_a)
        .def_property_readonly("row_bytes", &Signer::row_bytes);
    using Lengths = std::tuple<std::size_t, std::size_t, std::size_t, double>;
    py::class_<NgramIndex>(module, "NgramIndex")
        .def(py::init([](const Folding& folding, const Lengths& characters, const Lengths& words, std::size_t common) {
                 const auto made = [](const Lengths& given) {
                     return NgramIndex::Lengths{std::get<0>(given), std::get<1>(given), std::get<2>(given), std::get<3>(given)};
                 };
                 return std::make_unique<NgramIndex>(folding, made(characters), made(words), common);
             }),
             py::keep_alive<1, 2>(), "folding"_a, py::kw_only(), "characters"_a, "words"_a, "common"_a)
        .def("add_text", &NgramIndex::add_text, "text"_a, "unit"_a)
        .def("add_texts", &NgramIndex::add_texts, "texts"_a, "unit"_a, "least"_a)
        .def("finish", &NgramIndex::finish)
        .def("scan", &NgramIndex::scan, "texts"_a)
        .def("scan_all", &NgramIndex::scan_all, "texts"_a);
    module.def("find_roots", &find_roots, py::arg("parents").noconvert(), "ordinals"_a);
    module.def("unite", &unite, py::arg("parents").noconvert(), "left"_a, "right"_a);
}

}  // namespace aquila::text
