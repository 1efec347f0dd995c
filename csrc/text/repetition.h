// Repeated n-grams of words: Gopher's top and duplicate n-grams (arXiv 2112.11446, table A1), counted as datatrove does.
//
// U: words of the text. "Ink" is the text without blanks: the words, one after the other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "columns.h"
#include "counter.h"
#include "settings.h"

namespace aquila::text {

// Which of the keys of a sequence may have come more than once: two bits for each slot of hashes.
class Repeats {
public:
    void clear(size_t expected) {
        bits_ = 8;
        while (bits_ < 22 && (size_t(1) << bits_) < 16 * expected) ++bits_;
        once_.assign(size_t(1) << (bits_ - 6), 0);
        twice_.assign(size_t(1) << (bits_ - 6), 0);
    }
    void add(uint64_t key) {
        const uint64_t slot = key * SPREAD >> (64 - bits_), bit = uint64_t(1) << (slot & 63);
        twice_[slot >> 6] |= once_[slot >> 6] & bit;
        once_[slot >> 6] |= bit;
    }
    bool has(uint64_t key) const {
        const uint64_t slot = key * SPREAD >> (64 - bits_);
        return twice_[slot >> 6] >> (slot & 63) & 1;
    }

private:
    static constexpr uint64_t SPREAD = 0xF1357AEA2E62A9C5ull;
    int bits_ = 8;
    std::vector<uint64_t> once_, twice_;
};

struct Workspace {
    std::vector<uint64_t> ink;     // hash of the first k characters of the ink, k = 0 … its length; beyond it, leftovers
    std::vector<uint32_t> starts;  // of each word within the ink, and its end: U + 1
    std::vector<uint64_t> hashes;  // of each word
    std::vector<uint32_t> entries; // of each word or n-gram in `counter`
    std::vector<uint32_t> word;    // of each word in its counter
    std::vector<uint32_t> first;   // where each entry stood first
    std::vector<uint32_t> candidates;  // words at which an n-gram begins that may stand twice
    std::vector<uint32_t> repeated;
    std::vector<uint64_t> powers;
    std::vector<double> logarithms;
    std::vector<uint64_t> keys;
    Counter counter;
    Counter lines;
    Repeats repeats;
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

inline double count_log_count(Workspace& work, uint32_t count) {
    constexpr uint32_t KNOWN = 1024;
    if (work.logarithms.empty())
        for (uint32_t k = 0; k < KNOWN; ++k) work.logarithms.push_back(k ? k * std::log(double(k)) : 0.0);
    return count < KNOWN ? work.logarithms[count] : count * std::log(double(count));
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
    double entropy = 0;  // log U − Σ c log c / U, so that a word that stands once adds nothing
    uint64_t stop_words = 0, stops = 0;
    for (uint32_t entry = 0; entry < counter.size(); ++entry) {
        const uint32_t count = counter.count(entry);
        if (count > 1) entropy += count_log_count(work, count);
        if (settings.may_stop(counter.key(entry)) && settings.stop_words.count(counter.key(entry))) {
            ++stop_words;
            stops += counter.count(entry);
        }
    }
    row[COLUMN_stop_words] = double(stop_words);
    row[COLUMN_stop_word_share] = words ? double(stops) / double(words) : 0.0;
    row[COLUMN_unique_words] = words ? double(unique) / std::min<size_t>(words, UNIQUE_WINDOW) : 0.0;
    row[COLUMN_unigram_entropy] = words ? std::log(double(words)) - entropy / double(words) : 0.0;

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
        work.repeats.clear(grams);
        work.keys.clear();
        for (size_t place = 0; place < grams; ++place) {
            if (entries[place] == NONE || entries[place + 1] == NONE) {
                entries[place] = NONE;
                continue;
            }
            const uint64_t key = uint64_t(entries[place]) << 32 | work.word[place + n - 1];
            work.repeats.add(key);
            work.keys.push_back(key);
        }
        counter.clear(16);
        first.clear();
        size_t next = 0;
        for (size_t place = 0; place < grams; ++place) {
            if (entries[place] == NONE) continue;
            const uint64_t key = work.keys[next++];
            entries[place] = work.repeats.has(key) ? counter.add(key) : NONE;
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

// The number of the most frequent n-grams' occurrences for each n-gram (Data-Juicer's character_repetition_filter.py,
// which takes the square root of the number of different ones, but only such as repeat). `counter` holds all that repeat.
inline double most_frequent_share(Workspace& work, size_t grams) {
    const Counter& counter = work.counter;
    std::vector<uint32_t>& repeated = work.repeated;
    repeated.clear();
    size_t counted = 0;
    for (uint32_t entry = 0; entry < counter.size(); ++entry) {
        const uint32_t count = counter.count(entry);
        counted += count;
        if (count > 1) repeated.push_back(count);
    }
    const size_t different = grams - counted + counter.size();  // what is not counted stands once
    const size_t taken = std::min(size_t(std::sqrt(double(different))), repeated.size());
    std::partial_sort(repeated.begin(), repeated.begin() + taken, repeated.end(), std::greater<>());
    uint64_t sum = 0;
    for (size_t k = 0; k < taken; ++k) sum += repeated[k];
    return grams ? double(sum) / double(grams) : 0.0;
}

// The stretches of `size` characters of the ink: found(place, hash) for those that may stand twice, and few others.
template <typename Found>
void repeated_stretches(Workspace& work, size_t stretches, uint32_t size, Found&& found) {
    Repeats& repeats = work.repeats;
    repeats.clear(stretches);
    const uint64_t* ink = work.ink.data();
    const uint64_t shift = power(work, size);
    for (size_t place = 0; place < stretches; ++place) repeats.add(ink[place + size] - ink[place] * shift);
    for (size_t place = 0; place < stretches; ++place) {
        const uint64_t hash = ink[place + size] - ink[place] * shift;
        if (repeats.has(hash)) found(place, hash);
    }
}

// Characters of n-grams of words that stood before, n = 5 … 10; a found one is stepped over; and what repeats of the
// 10-grams of words and of characters. Words are joined without blanks, so an n-gram of at least SHORT characters can
// repeat only where its first SHORT characters do; where no word is such a place, nothing more is to be counted.
inline void duplicate_grams(Workspace& work, Unit unit, int64_t characters, double* row) {
    const size_t words = work.hashes.size();
    const uint32_t ink = work.starts[words];
    Counter& counter = work.counter;
    const uint32_t SHORT = unit == Unit::CHARACTERS ? 5 : 10;
    constexpr uint32_t LONG = 10;

    // Of the places in order, those at which a word begins are candidates.
    std::vector<uint32_t>& candidates = work.candidates;
    candidates.clear();
    size_t word = 0;
    const auto pass = [&](size_t place) {  // n-grams shorter than SHORT are candidates too
        for (; word < words && work.starts[word] < place; ++word)
            if (word + 5 <= words && work.starts[word + 5] - work.starts[word] < SHORT) candidates.push_back(uint32_t(word));
    };
    counter.clear(16);
    if (ink >= SHORT)
        repeated_stretches(work, ink - SHORT + 1, SHORT, [&](size_t place, uint64_t hash) {
            pass(place);
            if (word < words && work.starts[word] == place) candidates.push_back(uint32_t(word++));
            if (SHORT == LONG) counter.add(hash);
            else if (place + LONG <= ink) counter.add(work.ink[place + LONG] - work.ink[place] * power(work, LONG));
        });
    pass(size_t(ink) + 1);
    if (ink >= LONG) row[COLUMN_repeated_10_characters] = most_frequent_share(work, ink - LONG + 1);
    if (candidates.empty()) return;

    for (size_t n = 5; n <= 10 && n <= words; ++n) {
        counter.clear(16);
        uint64_t repeated = 0;
        size_t next = 0;
        for (const uint32_t place : candidates) {
            if (place + n > words) break;
            if (place < next) continue;
            const uint32_t first = work.starts[place], last = work.starts[place + n];
            const size_t known = counter.size();
            if (counter.add(stretch(work, first, last)) < known) {
                repeated += last - first;
                next = place + n;
            }
        }
        row[COLUMN_duplicate_5_grams + (n - 5)] = double(repeated) / characters;
    }

    if (words < 10) return;
    counter.clear(16);
    for (const uint32_t place : candidates)
        if (place + 10 <= words) counter.add(stretch(work, work.starts[place], work.starts[place + 10]));
    size_t several = 0;
    for (uint32_t entry = 0; entry < counter.size(); ++entry) several += counter.count(entry) > 1;
    row[COLUMN_repeated_10_grams] = double(several) / double(words - 9);
}

}  // namespace aquila::text
