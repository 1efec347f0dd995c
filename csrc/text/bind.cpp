// data_tools._text: what is counted over every character of a corpus.
//
// Each family of functions stands in a file of its own and binds itself.

#include <pybind11/pybind11.h>

#include "bind.h"

PYBIND11_MODULE(_text, module) {
    module.doc() = "Text statistics and n-gram hashes in one pass over the characters";
    aquila::text::bind_features(module);
    aquila::text::bind_ngrams(module);
}
