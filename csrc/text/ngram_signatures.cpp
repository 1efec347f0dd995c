#include "ngram_signatures.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

// The same loop for each instruction set; the loader chooses. Other compilers build the portable one.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define AQUILA_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define AQUILA_CLONES
#endif

namespace aquila::text {
namespace {

constexpr std::size_t kBlock = 32;  // permutations whose minima stay in registers over all shingles

// minima[p] = min over x of x * multipliers[p] modulo 2^32, for one block. Multiplication by an odd number permutes
// the 32-bit numbers; the order is decided by the high bits, on which every bit of x has its effect.
AQUILA_CLONES
void block_minima(const std::uint32_t* x, std::size_t count, const std::uint32_t* multipliers,
                  const std::uint32_t* offsets, std::uint32_t* minima) {
    std::uint32_t least[kBlock];
    for (std::size_t p = 0; p < kBlock; ++p) least[p] = 0xFFFFFFFFu;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t value = x[i];
        for (std::size_t p = 0; p < kBlock; ++p) {
            const std::uint32_t image = value * multipliers[p] + offsets[p];
            least[p] = image < least[p] ? image : least[p];
        }
    }
    for (std::size_t p = 0; p < kBlock; ++p) minima[p] = least[p];
}

}  // namespace

Signer::Signer(const Folding& folding, std::size_t bands, std::size_t rows, std::size_t sketch_bins, std::uint64_t seed,
               std::size_t characters, std::size_t words, bool join_numbers)
    : folding_(folding), bands_(bands), rows_(rows), bins_(sketch_bins), characters_(characters), words_(words),
      join_numbers_(join_numbers) {
    if (!bands || !rows || !characters || !words) throw std::invalid_argument("bands, rows and lengths start at 1");
    if (bins_ < 2 || (bins_ & (bins_ - 1))) throw std::invalid_argument("sketch_bins must be a power of two");
    const std::size_t permutations = (bands * rows + kBlock - 1) / kBlock * kBlock;
    multipliers_.resize(2 * permutations);  // multipliers, then offsets
    minima_.resize(permutations);
    for (std::size_t p = 0; p < permutations; ++p) {
        const std::uint64_t random = mix(mix(seed + 1) + p);
        multipliers_[p] = static_cast<std::uint32_t>(random) | 1u;
        multipliers_[permutations + p] = static_cast<std::uint32_t>(random >> 32);
    }
}

pybind11::array_t<std::uint8_t> Signer::sign(
    const pybind11::list& texts, const pybind11::array_t<std::uint8_t, pybind11::array::c_style>& units) {
    const std::size_t count = texts.size();
    if (units.ndim() != 1 || static_cast<std::size_t>(units.size()) != count)
        throw pybind11::value_error("units must have one element a text");
    pybind11::array_t<std::uint8_t> out({count, row_bytes()});
    std::uint8_t* row = out.mutable_data();
    for (std::size_t i = 0; i < count; ++i, row += row_bytes()) {
        const pybind11::handle text = PyList_GET_ITEM(texts.ptr(), static_cast<Py_ssize_t>(i));
        fold(folding_, text, join_numbers_, text_);
        const Unit unit = text_.unit(static_cast<Unit>(units.data()[i]));
        hash_tokens(text_, unit, tokens_);
        const std::size_t n = unit == Unit::kWords ? words_ : characters_;
        // A text shorter than a shingle is one shingle: near to nothing but its equals.
        hash_ngrams(tokens_, std::min(n, tokens_.size()), shingles_);
        const std::uint32_t length = static_cast<std::uint32_t>(PyUnicode_GET_LENGTH(text.ptr()));
        std::memcpy(row + 16, &length, 4);
        write_row(row);
    }
    return out;
}

void Signer::write_row(std::uint8_t* row) {
    const std::uint32_t count = static_cast<std::uint32_t>(shingles_.size());
    std::memcpy(row, text_.digest, 16);
    std::memcpy(row + 20, &count, 4);
    std::uint8_t* bands = row + 24;
    std::uint8_t* sketch = bands + 8 * bands_;
    std::memset(bands, 0, 8 * bands_ + bins_ / 2);
    if (!count) return;

    short_shingles_.resize(count);
    for (std::size_t i = 0; i < count; ++i) short_shingles_[i] = static_cast<std::uint32_t>(shingles_[i]);
    const std::size_t permutations = minima_.size();
    for (std::size_t p = 0; p < permutations; p += kBlock)
        block_minima(short_shingles_.data(), count, &multipliers_[p], &multipliers_[permutations + p], &minima_[p]);
    for (std::size_t band = 0; band < bands_; ++band) {
        std::uint64_t hash = band + 1;
        for (std::size_t r = 0; r < rows_; ++r) hash = mix(hash * 0x9E3779B97F4A7C15ull + minima_[band * rows_ + r]);
        hash |= !hash;  // 0 says that there is none
        std::memcpy(bands + 8 * band, &hash, 8);
    }

    // One permutation hashing (Li, Owen, Zhang 2012): the high bits choose the bin, the rest is what is least.
    const std::uint64_t mask = bins_ - 1;
    least_.assign(bins_, ~0ull);
    for (const std::uint64_t shingle : shingles_) {
        const std::uint64_t other = mix(shingle ^ 0xA0761D6478BD642Full);
        std::uint64_t& least = least_[other & mask];
        const std::uint64_t value = other >> 16;
        least = value < least ? value : least;
    }
    for (std::size_t bin = 0; bin < bins_; ++bin)
        if (least_[bin] != ~0ull)
            sketch[bin / 2] |= static_cast<std::uint8_t>((1 + mix(least_[bin]) % 15) << (4 * (bin & 1)));
}

}  // namespace aquila::text
