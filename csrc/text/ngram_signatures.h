// MinHash rows for deduplication: one of fixed size for each document.
#pragma once

#include "ngram_tokens.h"

namespace aquila::text {

// Computes rows of the dtype of data_tools/corpus/signatures.py:
//   exact   u64[2]        digest of the folded text
//   length  u32           characters of the text as it stands
//   shingles u32          n-grams of the folded text, repeated ones counted again
//   bands   u64[bands]    hash of `rows` minima each; 0 where the text folds to nothing
//   sketch  u8[bins / 2]  two bins of four bits a byte: 0 for an empty bin, else 1 to 15 out of the bin's least hash
class Signer {
 public:
    // shingle: [n of characters, n of words].
    Signer(const Folding& folding, std::size_t bands, std::size_t rows, std::size_t sketch_bins, std::uint64_t seed,
           std::size_t characters, std::size_t words, bool join_numbers);

    // units: [N] of Unit. Returns u8 [N, row_bytes].
    pybind11::array_t<std::uint8_t> sign(const pybind11::list& texts,
                                         const pybind11::array_t<std::uint8_t, pybind11::array::c_style>& units);

    std::size_t row_bytes() const { return 24 + 8 * bands_ + bins_ / 2; }

 private:
    void write_row(std::uint8_t* row);

    const Folding& folding_;
    std::size_t bands_, rows_, bins_, characters_, words_;
    bool join_numbers_;
    std::vector<std::uint32_t> multipliers_, minima_;
    std::vector<std::uint64_t> tokens_, shingles_, least_;
    std::vector<std::uint32_t> short_shingles_;
    Folded text_;
};

}  // namespace aquila::text
