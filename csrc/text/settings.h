// What the statistics of one language are measured with.
#pragma once

#include <cstdint>
#include <unordered_set>
#include <vector>

#include "characters.h"
#include "phrases.h"

namespace aquila::text {

enum class Unit { WORDS, CHARACTERS, BLANKS };

// A phrase of the groups up to SOLICITATION is looked for in the whole text, of the others in a line of C4's editing.
enum Group { FLAGGED, BOILERPLATE, ADVERTISING, LINK, BROKEN_PHRASE, SOLICITATION, LOREM_IPSUM, JAVASCRIPT, POLICY, GROUPS };

// C4's editing of lines; a number below 0 switches its rule off.
struct LineRules {
    bool on = false;
    bool need_terminal = false;
    bool remove_citations = false;
    bool drop_javascript = false;
    bool drop_policy = false;
    int64_t max_word_length = -1;
    int64_t min_words = -1;
};

// Kinds of characters that are counted: bytes of one word, so that one addition counts them all.
enum Kind { INK, ALPHANUMERICS, DIGITS, HANS, TRADITIONALS, BROKENS, HASHES, ELLIPSES, KINDS };

inline uint64_t kinds_of(uint32_t code, unsigned flags) {
    const bool is[KINDS] = {!(flags & BLANK), (flags & ALPHANUMERIC) != 0, (flags & DIGIT) != 0, (flags & HAN) != 0,
                            (flags & TRADITIONAL) != 0, (flags & BROKEN) != 0, code == '#', code == 0x2026};
    uint64_t kinds = 0;
    for (int kind = 0; kind < KINDS; ++kind) kinds |= uint64_t(is[kind]) << (8 * kind);
    return kinds;
}

struct Settings {
    Unit unit = Unit::WORDS;
    int64_t short_line = 30;
    CharacterTable characters;
    std::vector<uint64_t> kinds;  // by code point below 2^16: a one in the byte of each Kind that it is of
    std::unordered_set<uint64_t> stop_words;  // hash_word of each
    uint64_t stop_bits[64] = {};               // one bit by the high ones of each hash: most words are told by it

    bool may_stop(uint64_t hash) const { return stop_bits[hash >> 58] >> (hash >> 52 & 63) & 1; }
    void add_stop(uint64_t hash) {
        stop_words.insert(hash);
        stop_bits[hash >> 58] |= uint64_t(1) << (hash >> 52 & 63);
    }
    Phrases phrases;
    Phrases line_phrases;
    LineRules line_rules;
};

// A polynomial in BASE modulo 2^64 over codes that mix() spread. The hash of a concatenation follows from its parts'.
constexpr uint64_t BASE = 0x9E3779B97F4A7C15ull;
inline uint64_t code_value(uint32_t code) { return (uint64_t(code) + 1) * 0xD6E8FEB86659FD93ull ^ (uint64_t(code) << 29); }

template <typename Char>
uint64_t hash_word(const Char* text, int64_t length) {
    uint64_t hash = 0;
    for (int64_t place = 0; place < length; ++place) hash = hash * BASE + code_value(text[place]);
    return hash;
}

}  // namespace aquila::text
