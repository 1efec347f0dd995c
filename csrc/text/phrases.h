// Many phrases in one pass over a text.
//
// Two filters, over the first two characters of the short phrases and the first three of the others, pass by nearly all
// places of running text; at what is left, the phrases are followed letter by letter.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "characters.h"

namespace aquila::text {

struct Phrase {
    std::u32string text;  // in lower case
    int group;
    bool whole;  // only where no letter, digit or "_" touches it
};

class Phrases {
public:
    explicit Phrases(std::vector<Phrase> phrases = {});

    bool empty() const { return phrases_.empty(); }

    // Calls found(first, last, group) for every phrase that stands at [first, last), case aside, in the order of `first`.
    template <typename Char, typename Found>
    void search(const Char* text, int64_t length, const uint16_t* characters, Found&& found) const {
        if (empty()) return;
        uint32_t one = length > 0 ? symbols_[text[0]] : 0, two = length > 1 ? symbols_[text[1]] : 0;
        for (int64_t place = 0; place < length; ++place) {
            const uint32_t three = place + 2 < length ? symbols_[text[place + 2]] : 0;
            if (one && (holds(pairs_, spread(one, two, 0)) || holds(triples_, spread(one, two, three))))
                follow(text, place, length, characters, found);
            one = two;
            two = three;
        }
    }

private:
    static constexpr uint32_t NONE = ~uint32_t(0);
    using Filter = std::vector<uint64_t>;  // 2^16 bits

    static uint32_t spread(uint32_t one, uint32_t two, uint32_t three) {
        return (one * 0x9E3779B1u + two * 0x85EBCA77u + three * 0xC2B2AE3Du) >> 16;
    }
    static bool holds(const Filter& filter, uint32_t bit) { return filter[bit >> 6] >> (bit & 63) & 1; }

    uint32_t child(uint32_t state, uint32_t symbol) const {
        if (state == 0) return roots_[symbol];
        for (const auto& [known, target] : children_[state])
            if (known == symbol) return target;
        return 0;
    }

    template <typename Char, typename Found>
    void follow(const Char* text, int64_t first, int64_t length, const uint16_t* characters, Found&& found) const {
        uint32_t state = 0;
        for (int64_t last = first; last < length;) {
            const uint32_t symbol = symbols_[text[last]];
            if (symbol == 0 || (state = child(state, symbol)) == 0) return;
            ++last;
            for (uint32_t own = phrase_[state]; own != NONE; own = next_[own]) {
                const bool touched = (first > 0 && (characters[text[first - 1]] & WORD)) ||
                                     (last < length && (characters[text[last]] & WORD));
                if (!(phrases_[own].whole && touched)) found(first, last, phrases_[own].group);
            }
        }
    }

    std::vector<Phrase> phrases_;
    std::vector<uint16_t> symbols_;  // by code point, upper and lower case alike; 0: in no phrase
    std::vector<uint32_t> roots_;    // by symbol
    std::vector<std::vector<std::pair<uint32_t, uint32_t>>> children_;  // by state: symbol, state
    std::vector<uint32_t> phrase_;  // by state: a phrase that ends there, or NONE
    std::vector<uint32_t> next_;    // by phrase: another of the same text, as two groups may have it
    Filter pairs_;                  // of phrases of one or two characters
    Filter triples_;                // of longer ones
};

}  // namespace aquila::text
