#include "ngram_tokens.h"

#include <stdexcept>

namespace aquila::text {
namespace {

constexpr std::uint64_t kBase = 0x9E3779B97F4A7C15ull;  // odd, so that a power of it never vanishes modulo 2^64
constexpr std::size_t kCodePoints = 0x110000;

inline bool is_han(std::uint32_t c) {
    if (c < 0x3040) return false;
    return c <= 0x30FF || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x20000 && c <= 0x323AF);
}

inline bool is_digit(std::uint32_t c) { return c - '0' < 10u; }

// Of either width.
inline bool is_decimal_mark(std::uint32_t c) { return c == '.' || c == ',' || c == 0xFF0E || c == 0xFF0C; }

inline std::uint64_t rotate(std::uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }

template <class Character>
void fold_characters(const Folding& folding, const Character* text, std::size_t length, bool join_numbers, Folded& out) {
    // Each step of the two lanes is a bijection of its state: texts that differ in one character never meet.
    std::uint64_t low = 0x243F6A8885A308D3ull, high = 0x13198A2E03707344ull;
    bool in_word = false, after_han = false, in_number = false;
    for (std::size_t i = 0; i < length; ++i) {
        const std::uint32_t entry = folding.entry(text[i]);
        if (entry == kIgnored) continue;
        if (entry == kBoundary) {
            const bool decimal = in_number && in_word && is_decimal_mark(text[i]) && i + 1 < length &&
                                 is_digit(folding.entry(text[i + 1]));
            if (!decimal) in_word = in_number = false;
            continue;
        }
        const std::uint32_t* characters = &entry;
        std::size_t count = 1;
        if (entry & kExpansion) {
            characters = folding.expansion(entry);
            count = *characters++;
        }
        for (std::size_t k = 0; k < count; ++k) {
            const std::uint32_t c = characters[k];
            low = rotate((low ^ c) * 0x9FB21C651E98DF25ull, 29);
            high = rotate((high ^ c) * 0xD6E8FEB86659FD93ull, 37);
            const bool han = is_han(c), digit = is_digit(c);
            if (join_numbers && digit && in_number && in_word) continue;
            if (!in_word || han || after_han) out.words.push_back(static_cast<std::uint32_t>(out.characters.size()));
            out.characters.push_back(join_numbers && digit ? '0' : c);
            out.places.push_back(static_cast<std::uint32_t>(i));
            out.han += han;
            in_word = true;
            after_han = han;
            in_number = digit;
        }
    }
    if (out.characters.empty())  // nothing but signs: equal only to the same signs
        for (std::size_t i = 0; i < length; ++i) {
            low = rotate((low ^ text[i]) * 0x9FB21C651E98DF25ull, 29);
            high = rotate((high ^ text[i]) * 0xD6E8FEB86659FD93ull, 37);
        }
    out.digest[0] = mix(low);
    out.digest[1] = mix(high);
}

}  // namespace

Folding::Folding(const Table& entries, const Table& pool)
    : entries_(entries.data(), entries.data() + entries.size()), pool_(pool.data(), pool.data() + pool.size()) {
    if (entries_.size() != kCodePoints) throw std::invalid_argument("entries must have one element a code point");
    for (const std::uint32_t entry : entries_) {
        if (entry >= kIgnored || !(entry & kExpansion)) continue;
        const std::size_t start = entry & ~kExpansion;
        if (start >= pool_.size() || start + pool_[start] >= pool_.size())
            throw std::invalid_argument("an expansion points outside the pool");
    }
}

void fold(const Folding& folding, pybind11::handle text, bool join_numbers, Folded& out) {
    if (!PyUnicode_Check(text.ptr())) throw pybind11::type_error("a text must be a str");
    out.characters.clear();
    out.places.clear();
    out.words.clear();
    out.han = 0;
    const std::size_t length = static_cast<std::size_t>(PyUnicode_GET_LENGTH(text.ptr()));
    if (length > 0xFFFFFFF0u) throw pybind11::value_error("a text must have fewer than 2^32 characters");
    const void* data = PyUnicode_DATA(text.ptr());
    switch (PyUnicode_KIND(text.ptr())) {
        case PyUnicode_1BYTE_KIND:
            return fold_characters(folding, static_cast<const Py_UCS1*>(data), length, join_numbers, out);
        case PyUnicode_2BYTE_KIND:
            return fold_characters(folding, static_cast<const Py_UCS2*>(data), length, join_numbers, out);
        default:
            return fold_characters(folding, static_cast<const Py_UCS4*>(data), length, join_numbers, out);
    }
}

void hash_tokens(const Folded& text, Unit unit, std::vector<std::uint64_t>& hashes) {
    const std::size_t tokens = text.tokens(unit);
    hashes.resize(tokens);
    if (unit == Unit::kCharacters) {
        for (std::size_t t = 0; t < tokens; ++t) hashes[t] = mix(text.characters[t]);
        return;
    }
    for (std::size_t t = 0; t < tokens; ++t) {
        std::uint64_t hash = 0;
        const std::size_t end = text.end(unit, t);
        for (std::size_t c = text.begin(unit, t); c < end; ++c)
            hash = rotate((hash ^ text.characters[c]) * 0x9FB21C651E98DF25ull, 29);
        hashes[t] = mix(hash);
    }
}

void hash_ngrams(const std::vector<std::uint64_t>& tokens, std::size_t n, std::vector<std::uint64_t>& hashes) {
    hashes.clear();
    if (n == 0 || tokens.size() < n) return;
    // Rabin-Karp modulo 2^64 over token hashes: H(i) = sum of token(i + k) * base^(n - 1 - k).
    std::uint64_t oldest = 1, hash = 0;
    for (std::size_t k = 1; k < n; ++k) oldest *= kBase;
    for (std::size_t k = 0; k < n; ++k) hash = hash * kBase + tokens[k];
    hashes.resize(tokens.size() - n + 1);
    hashes[0] = mix(hash);
    for (std::size_t i = 1; i < hashes.size(); ++i) {
        hash = (hash - tokens[i - 1] * oldest) * kBase + tokens[i + n - 1];
        hashes[i] = mix(hash);
    }
}

}  // namespace aquila::text
