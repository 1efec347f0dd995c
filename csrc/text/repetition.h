// Repeated n-grams of words: Gopher's top and duplicate n-grams (arXiv 2112.11446, table A1), counted as datatrove does.
//
// U: words of the text. "Ink" is the text without blanks: the words, one after the other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "columns.h"
#include "counter.h"
#include "settings.h"

namespace aquila::text {

struct Workspace {
    std::vector<uint64_t> ink;     // hash of the first k characters of the ink, k = 0 … its length
    std::vector<uint32_t> starts;  // of each word within the ink, and its end: U + 1
    std::vector<uint64_t> hashes;  // of each word
    std::vector<uint32_t> entries; // of each word or n-gram in `counter`
    std::vector<uint32_t> word;    // of each word in its counter
    std::vector<uint32_t> first;   // where each entry stood first
    std::vector<uint8_t> candidates;
    std::vector<uint64_t> powers;
    Counter counter;
    Counter lines;
};

// Longer texts: their n-grams are counted within this much ink. Bounds the memory.
constexpr int64_t MOST_INK = 2'000'000;
constexpr int64_t UNIQUE_WINDOW = 10'000;

inline uint64_t power(Workspace& work, uint64_t exponent) {
    constexpr uint64_t KNOWN = 1024;
    if (work.powers.empty()) {
        work.powers.assign(KNOWN, 1);
        for (size_t k = 1; k < KNOWN; ++k) work.powers[k] = work.powers[k - 1] * BASE;
    }
    if (exponent < KNOWN) return work.powers[exponent];
    uint64_t result = 1, square = BASE;
    for (; exponent; exponent >>= 1, square *= square)
        if (exponent & 1) result *= square;
    return result;
}

// The hash of ink[first, last).
inline uint64_t stretch(Workspace& work, uint32_t first, uint32_t last) {
    return work.ink[last] - work.ink[first] * power(work, last - first);
}

// Unique words, their entropy in nats, stop words, and per n = 2, 3, 4 the characters of the most frequent n-gram times its count.
// An n-gram can stand twice only where both its (n−1)-grams do: the others are not counted.
inline void top_grams(Workspace& work, const Settings& settings, int64_t characters, double* row) {
    const size_t words = work.hashes.size();
    Counter& counter = work.counter;
    counter.clear(words);
    work.entries.resize(words);
    size_t unique = 0;
    for (size_t place = 0; place < words; ++place) {
        work.entries[place] = counter.add(work.hashes[place]);
        if (place + 1 == std::min<size_t>(words, UNIQUE_WINDOW)) unique = counter.size();
    }
    double entropy = 0;
    uint64_t stop_words = 0, stops = 0;
    for (uint32_t entry = 0; entry < counter.size(); ++entry) {
        const double share = double(counter.count(entry)) / double(words);
        entropy -= share * std::log(share);
        if (settings.stop_words.count(counter.key(entry))) {
            ++stop_words;
            stops += counter.count(entry);
        }
    }
    row[COLUMN_stop_words] = double(stop_words);
    row[COLUMN_stop_word_share] = words ? double(stops) / double(words) : 0.0;
    row[COLUMN_unique_words] = words ? double(unique) / std::min<size_t>(words, UNIQUE_WINDOW) : 0.0;
    row[COLUMN_unigram_entropy] = words ? entropy : 0.0;

    // `entries` becomes those of the n-grams, NONE where an n-gram stands once; `word` keeps those of the words.
    constexpr uint32_t NONE = ~uint32_t(0);
    std::vector<uint32_t>& entries = work.entries;
    std::vector<uint32_t>& first = work.first;
    const auto forget_single = [&](size_t grams) {
        for (size_t place = 0; place < grams; ++place)
            if (entries[place] != NONE && counter.count(entries[place]) == 1) entries[place] = NONE;
    };
    work.word = entries;
    forget_single(words);
    for (size_t n = 2; n <= 4; ++n) {
        if (words < n) break;
        const size_t grams = words - n + 1;
        size_t repeated = 0;
        for (size_t place = 0; place < grams; ++place) repeated += entries[place] != NONE && entries[place + 1] != NONE;
        counter.clear(repeated);
        first.clear();
        for (size_t place = 0; place < grams; ++place) {
            if (entries[place] == NONE || entries[place + 1] == NONE) {
                entries[place] = NONE;
                continue;
            }
            entries[place] = counter.add(uint64_t(entries[place]) << 32 | work.word[place + n - 1]);
            if (entries[place] == first.size()) first.push_back(uint32_t(place));
        }
        uint32_t most = 1, top = 0;  // of equally frequent ones, the first: where none repeats, the text's first
        for (uint32_t entry = 0; entry < counter.size(); ++entry)
            if (counter.count(entry) > most) {
                most = counter.count(entry);
                top = first[entry];
            }
        const double length = double(work.starts[top + n] - work.starts[top]) + double(n - 1);  // joined with blanks
        row[COLUMN_top_2_gram + (n - 2)] = length * most / characters;
        forget_single(grams);
    }
}

// Data-Juicer's character repetition (character_repetition_filter.py): the share of the most frequent n-grams, of
// which it takes the square root of the number of different ones, but only such as repeat.
inline double most_frequent_share(const Counter& counter) {
    std::vector<uint32_t> repeated;
    uint64_t total = 0;
    for (uint32_t entry = 0; entry < counter.size(); ++entry) {
        const uint32_t count = counter.count(entry);
        total += count;
        if (count > 1) repeated.push_back(count);
    }
    const size_t taken = std::min(size_t(std::sqrt(double(counter.size()))), repeated.size());
    std::partial_sort(repeated.begin(), repeated.begin() + taken, repeated.end(), std::greater<>());
    uint64_t sum = 0;
    for (size_t k = 0; k < taken; ++k) sum += repeated[k];
    return total ? double(sum) / total : 0.0;
}

// Characters of n-grams of words that stood before, n = 5 … 10. A found one is stepped over. Words are joined without
// blanks, so an n-gram of at least SHORT characters can repeat only where its first SHORT characters do: `candidates`.
inline void duplicate_grams(Workspace& work, Unit unit, int64_t characters, double* row) {
    const size_t words = work.hashes.size();
    const uint32_t ink = work.starts[words];
    Counter& counter = work.counter;
    const uint32_t SHORT = unit == Unit::CHARACTERS ? 5 : 10;
    constexpr uint32_t LONG = 10;

    // Every stretch of SHORT characters, or of LONG where they can repeat at all.
    work.candidates.assign(words, 1);
    if (ink >= SHORT) {
        const size_t stretches = ink - SHORT + 1;
        const uint64_t shift = power(work, SHORT);
        counter.clear(stretches);
        work.entries.resize(stretches);
        for (size_t place = 0; place < stretches; ++place)
            work.entries[place] = counter.add(work.ink[place + SHORT] - work.ink[place] * shift);
        bool any = false;
        for (size_t word = 0; word < words && work.starts[word] < stretches; ++word) {
            work.candidates[word] = counter.count(work.entries[work.starts[word]]) > 1;
            any |= work.candidates[word];
        }
        if (SHORT == LONG) row[COLUMN_repeated_10_characters] = most_frequent_share(counter);
        else if (any && ink >= LONG) {
            const size_t longer = ink - LONG + 1;
            const uint64_t long_shift = power(work, LONG);
            counter.clear(longer);
            for (size_t place = 0; place < longer; ++place)
                counter.add(work.ink[place + LONG] - work.ink[place] * long_shift);
            row[COLUMN_repeated_10_characters] = most_frequent_share(counter);
        }
    }

    for (size_t n = 5; n <= 10 && n <= words; ++n) {
        counter.clear(64);
        uint64_t repeated = 0;
        for (size_t place = 0; place + n <= words;) {
            const uint32_t first = work.starts[place], last = work.starts[place + n];
            if (last - first < SHORT || work.candidates[place]) {
                const size_t known = counter.size();
                if (counter.add(stretch(work, first, last)) < known) {
                    repeated += last - first;
                    place += n;
                    continue;
                }
            }
            ++place;
        }
        row[COLUMN_duplicate_5_grams + (n - 5)] = double(repeated) / characters;
    }

    if (words < 10) return;
    counter.clear(64);
    for (size_t place = 0; place + 10 <= words; ++place)
        if (work.candidates[place] || work.starts[place + 10] - work.starts[place] < SHORT)
            counter.add(stretch(work, work.starts[place], work.starts[place + 10]));
    size_t several = 0;
    for (uint32_t entry = 0; entry < counter.size(); ++entry) several += counter.count(entry) > 1;
    row[COLUMN_repeated_10_grams] = double(several) / double(words - 9);
}

}  // namespace aquila::text
