// Many phrases in one pass over a text (Aho and Corasick, "Efficient string matching", CACM 18(6), 1975).
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
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

    // Calls found(first, last, group) for every phrase that stands at [first, last), case aside.
    template <typename Char, typename Found>
    void search(const Char* text, int64_t length, const uint16_t* characters, Found&& found) const {
        uint32_t state = 0;
        for (int64_t place = 0; place < length; ++place) {
            uint32_t code = text[place];
            if (characters[code] & CASED) code = lower(code);
            const uint32_t symbol = symbols_[code];
            if (symbol == 0) {
                state = 0;
                continue;
            }
            state = step(state, symbol);
            for (uint32_t output = first_output_[state]; output != NONE; output = next_output_[output]) {
                const Phrase& phrase = phrases_[output];
                const int64_t first = place + 1 - int64_t(phrase.text.size());
                const bool touched = (first > 0 && (characters[text[first - 1]] & WORD)) ||
                                     (place + 1 < length && (characters[text[place + 1]] & WORD));
                if (!(phrase.whole && touched)) found(first, place + 1, phrase.group);
            }
        }
    }

private:
    static constexpr uint32_t NONE = ~uint32_t(0);

    uint32_t child(uint32_t state, uint32_t symbol) const {
        if (state == 0) return roots_[symbol];
        const auto& edges = children_[state];
        for (const auto& [known, target] : edges)
            if (known == symbol) return target;
        return 0;
    }

    uint32_t step(uint32_t state, uint32_t symbol) const {
        for (;;) {
            const uint32_t next = child(state, symbol);
            if (next || state == 0) return next;
            state = failure_[state];
        }
    }

    std::vector<Phrase> phrases_;
    std::vector<uint16_t> symbols_;  // by code point; 0: in no phrase
    std::vector<uint32_t> roots_;    // by symbol
    std::vector<std::vector<std::pair<uint32_t, uint32_t>>> children_;
    std::vector<uint32_t> failure_;
    std::vector<uint32_t> first_output_;  // a state's own phrase, or the longest of its suffixes'
    std::vector<uint32_t> next_output_;   // by phrase: the next shorter one that ends with it
};

}  // namespace aquila::text
