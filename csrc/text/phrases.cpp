#include "phrases.h"

#include <stdexcept>
#include <utility>

namespace aquila::text {

Phrases::Phrases(std::vector<Phrase> phrases) : symbols_(CODE_POINTS, 0), roots_(1, 0), children_(1) {
    std::vector<uint32_t> own(1, NONE);
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
                own.push_back(NONE);
                if (state == 0)
                    roots_[symbol] = next;
                else
                    children_[state].emplace_back(symbol, next);
            }
            state = next;
        }
        if (own[state] != NONE) continue;  // listed twice: the first one counts
        own[state] = uint32_t(phrases_.size());
        phrases_.push_back(std::move(phrase));
    }
    failure_.assign(children_.size(), 0);
    first_output_ = own;
    next_output_.assign(phrases_.size(), NONE);
    std::vector<uint32_t> queue;
    for (const uint32_t target : roots_)
        if (target) queue.push_back(target);
    for (size_t head = 0; head < queue.size(); ++head) {  // breadth first: a suffix is always done before
        const uint32_t state = queue[head];
        const uint32_t suffix = first_output_[failure_[state]];
        if (own[state] == NONE)
            first_output_[state] = suffix;
        else
            next_output_[own[state]] = suffix;
        for (const auto& [symbol, target] : children_[state]) {
            failure_[target] = step(failure_[state], symbol);
            queue.push_back(target);
        }
    }
}

}  // namespace aquila::text
