// Evaluation questions, found again in documents by their n-grams; every hit is compared character by character.
#pragma once

#include <pybind11/stl.h>

#include <unordered_map>
#include <utility>
#include <vector>

#include "ngram_tokens.h"

namespace aquila::text {

// A pattern is one text of an item (its question, say), or several texts that must stand close together (its options).
class NgramIndex {
 public:
    // Of each unit (characters, words): tokens in an n-gram; fewest tokens of a short text, which is looked for whole;
    // tokens in the start of one of several texts, by which they are found; least share of n-grams.
    struct Lengths {
        std::size_t ngram, whole, start;
        double ratio;
    };
    // common: n-grams of more patterns than this are no evidence.
    NgramIndex(const Folding& folding, Lengths characters, Lengths words, std::size_t common)
        : folding_(folding), lengths_{characters, words}, common_(common) {}

    // The pattern's number, or -1 where the text has fewer than `whole` tokens.
    std::int64_t add_text(const pybind11::str& text, std::uint8_t unit);
    // The same, -1 where no text has `start` tokens or all have fewer than `least` together.
    std::int64_t add_texts(const std::vector<pybind11::str>& texts, std::uint8_t unit, std::size_t least);
    void finish();

    // For each text [N] the match with the greatest ratio among those that reach their unit's share (else the greatest
    // of all; the first of equal ones): pattern, or -1; its ratio; first and end index into the text.
    pybind11::tuple scan(const pybind11::list& texts);
    // All patterns that each text holds, those of equal phrases too, by text and pattern: text [M]; pattern [M];
    // ratio [M], which reaches its unit's share; first and end index of its best place in the text [M, 2].
    pybind11::tuple scan_all(const pybind11::list& texts);

 private:
    struct Phrase {
        std::vector<std::uint32_t> characters, ends;  // of each token
        std::vector<std::uint64_t> hashes;
    };
    struct Pattern {
        Unit unit;
        std::vector<std::uint32_t> phrases;  // into phrases_, where equal ones stand once
        std::size_t distinct = 0;            // n-grams that are evidence; 0: the phrases are looked for whole
    };
    struct Posting {
        std::uint64_t hash;
        std::uint32_t pattern, phrase, offset;  // which n-gram of which phrase (into Pattern::phrases)
    };
    // The n-grams of one length. Nearly all n-grams of a text end at `filter`, which stays in the cache: two bits of
    // one word for each hash, 16 bits of room. Behind it: where in `postings`, which are sorted, a hash begins.
    struct Table {
        std::size_t length = 0;
        int filter_shift = 0, slots_shift = 0;  // leading bits of the hash that are not of the place
        std::vector<std::uint64_t> filter;
        std::vector<std::uint32_t> slots;  // one more than the place; 0: empty
        std::vector<Posting> postings;

        void close();
        bool may_hold(std::uint64_t hash) const {
            const std::uint64_t bits = bits_of(hash);
            return (filter[hash >> filter_shift] & bits) == bits;
        }
        std::size_t find(std::uint64_t hash) const;  // the first posting; postings.size() where there is none
        static std::uint64_t bits_of(std::uint64_t hash) { return 1ull << (hash & 63) | 1ull << (hash >> 6 & 63); }
    };
    struct Match {
        std::int64_t pattern = -1;
        double ratio = 0;
        std::size_t begin = 0, end = 0;  // tokens
        bool reached = false;
    };
    struct Found {
        std::int64_t text, pattern;
        double ratio;
        std::int64_t first, last;
    };
    struct Hit {
        std::uint32_t pattern, position, offset;
    };

    std::uint32_t add_phrase(const pybind11::str& text, Unit unit);
    int kind_of(const Pattern& pattern) const;
    void index(Unit unit, int kind);
    void search(Unit unit, Match& best);
    void scan_unit(Unit unit, Match& best, std::size_t& first, std::size_t& last);
    void collect(Unit unit, std::int64_t text, std::vector<Found>& all);
    std::pair<std::size_t, std::size_t> span(Unit unit, const Match& match) const;
    void keep(Match& best, const Match& match);
    void scan_table(Unit unit, const Table& table, Match& best);
    void look_up(Unit unit, const Table& table, std::size_t position, std::uint64_t hash, Match& best);
    bool equal(const Phrase& phrase, std::size_t offset, std::size_t count, Unit unit, std::size_t position) const;
    const std::vector<std::size_t>& places_of(std::uint32_t phrase, Unit unit);
    void match_ngrams(Unit unit, Match& best);
    void match_whole(Unit unit, const Posting& posting, std::size_t start, Match& best);
    static void improve(Match& best, const Match& match);

    const Folding& folding_;
    Lengths lengths_[2];
    std::size_t common_;
    std::vector<Phrase> phrases_;
    std::unordered_multimap<std::uint64_t, std::uint32_t> phrase_numbers_;  // by hash; empty once finished
    std::vector<Pattern> patterns_;
    std::unordered_map<std::uint32_t, std::vector<std::uint32_t>> twins_;  // by the first of equal phrases, the others
    Table tables_[2][3];  // by unit; n-grams, short texts, starts
    Folded text_;
    std::vector<std::uint64_t> tokens_;
    std::vector<Hit> hits_;
    std::unordered_map<std::uint32_t, std::vector<std::size_t>> places_;  // of the phrases looked for in this text
    bool every_ = false;                              // scan_all: matches go to found_
    std::unordered_map<std::uint32_t, Match> found_;  // the best of each pattern that this text holds
};

}  // namespace aquila::text
