// Text as the n-gram kernels see it: folded characters, and where each stands in the text.
//
// Folding (NFKC and beyond: case, width, marks, punctuation, white space) is a table over code points, made by
// data_tools/corpus/folding.py from Python's own Unicode data.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace aquila::text {

constexpr std::uint32_t kBoundary = 0xFFFFFFFFu;  // folds to nothing and ends a word
constexpr std::uint32_t kIgnored = 0xFFFFFFFEu;   // folds to nothing inside a word
constexpr std::uint32_t kExpansion = 0x80000000u; // the other bits: where in the pool its length and characters stand

// What n-grams are counted in; the values are those of data_tools/corpus/folding.py.
enum class Unit : std::uint8_t { kCharacters = 0, kWords = 1, kGuess = 2 };

class Folding {
 public:
    using Table = pybind11::array_t<std::uint32_t, pybind11::array::c_style | pybind11::array::forcecast>;

    // entries: one for each code point: the character it folds to, or one of the codes above.
    Folding(const Table& entries, const Table& pool);

    std::uint32_t entry(std::uint32_t code_point) const { return entries_[code_point]; }
    const std::uint32_t* expansion(std::uint32_t entry) const { return pool_.data() + (entry & ~kExpansion); }

 private:
    std::vector<std::uint32_t> entries_, pool_;
};

struct Folded {
    std::vector<std::uint32_t> characters;  // [C] letters and digits, folded
    std::vector<std::uint32_t> places;      // [C] index into the text of the character that each came from
    std::vector<std::uint32_t> words;       // [W] index into characters at which each word begins
    std::size_t han = 0;                    // characters of Chinese and Japanese writing; each is a word of its own
    std::uint64_t digest[2] = {0, 0};       // of all folded characters, digits as they stand

    // Chinese where at least three characters in ten are Han: English terms abound in Chinese medical text.
    Unit unit(Unit wanted) const {
        if (wanted != Unit::kGuess) return wanted;
        return 10 * han >= 3 * characters.size() ? Unit::kCharacters : Unit::kWords;
    }
    std::size_t tokens(Unit unit) const { return unit == Unit::kWords ? words.size() : characters.size(); }
    std::size_t begin(Unit unit, std::size_t token) const { return unit == Unit::kWords ? words[token] : token; }
    std::size_t end(Unit unit, std::size_t token) const {
        if (unit == Unit::kCharacters) return token + 1;
        return token + 1 < words.size() ? words[token + 1] : characters.size();
    }
};

// Folds `text` into `out`, whose buffers are used again. `join_numbers`: a number, its decimal mark included,
// becomes the one character 0; the digest keeps its digits.
void fold(const Folding& folding, pybind11::handle text, bool join_numbers, Folded& out);

// hashes[t]: of token t.
void hash_tokens(const Folded& text, Unit unit, std::vector<std::uint64_t>& hashes);

// hashes[i]: of the n tokens from i on; none where there are fewer than n.
void hash_ngrams(const std::vector<std::uint64_t>& tokens, std::size_t n, std::vector<std::uint64_t>& hashes);

// MurmurHash3's finaliser: every bit of the result depends on every bit of x.
inline std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCDull;
    x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53ull;
    return x ^ (x >> 33);
}

}  // namespace aquila::text
