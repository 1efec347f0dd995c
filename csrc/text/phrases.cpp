#include "phrases.h"

#include <stdexcept>

namespace aquila::text {
namespace {

constexpr uint32_t LAST_CASED = 0x20000;  // no character beyond has a case

}  // namespace

Phrases::Phrases(std::vector<Phrase> phrases)
    : symbols_(CODE_POINTS, 0), roots_(1, 0), children_(1), phrase_(1, NONE), pairs_(1 << 10, 0), triples_(1 << 10, 0) {
    for (Phrase& phrase : phrases) {
        if (phrase.text.empty()) continue;
        uint32_t state = 0;
        for (char32_t& code : phrase.text) {
            code = lower(code);
            if (symbols_[code] == 0) {
                if (roots_.size() > 0xFFFF) throw std::length_error("more than 65,535 different characters in phrases");
                symbols_[code] = uint16_t(roots_.size());
                roots_.push_back(0);
            }
            const uint32_t symbol = symbols_[code];
            uint32_t next = child(state, symbol);
            if (next == 0) {
                next = uint32_t(children_.size());
                children_.emplace_back();
                phrase_.push_back(NONE);
                if (state == 0)
                    roots_[symbol] = next;
                else
                    children_[state].emplace_back(symbol, next);
            }
            state = next;
        }
        next_.push_back(phrase_[state]);
        phrase_[state] = uint32_t(phrases_.size());
        phrases_.push_back(std::move(phrase));
    }
    for (uint32_t code = 0; code < LAST_CASED; ++code)
        if (const uint16_t symbol = symbols_[lower(code)]) symbols_[code] = symbol;

    const auto set = [](Filter& filter, uint32_t bit) { filter[bit >> 6] |= uint64_t(1) << (bit & 63); };
    const auto symbol = [&](const Phrase& phrase, size_t place) { return uint32_t(symbols_[phrase.text[place]]); };
    for (const Phrase& phrase : phrases_) {
        const uint32_t one = symbol(phrase, 0);
        if (phrase.text.size() == 1)
            for (uint32_t two = 0; two < roots_.size(); ++two) set(pairs_, spread(one, two, 0));
        else if (phrase.text.size() == 2)
            set(pairs_, spread(one, symbol(phrase, 1), 0));
        else
            set(triples_, spread(one, symbol(phrase, 1), symbol(phrase, 2)));
    }
}

}  // namespace aquila::text
