// Evaluation questions, found again in documents by their n-grams; every hit is compared character by character.
#pragma once

#include <pybind11/stl.h>

#include <string>
#include <unordered_map>

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

 private:
    struct Phrase {
        std::vector<std::uint32_t> characters, ends;  // of each token
        std::vector<std::uint64_t> hashes;
    };
    struct Pattern {
        Unit unit;
        std::vector<Phrase> phrases;
        std::size_t distinct = 0;  // n-grams that are evidence; 0: the phrases are looked for whole
    };
    struct Posting {
        std::uint32_t pattern, phrase, offset;
    };
    // The n-grams of one length.
    struct Table {
        std::size_t length = 0;
        std::vector<std::uint64_t> filter;  // a bit for each hash, modulo its size: most n-grams end here
        std::unordered_map<std::uint64_t, std::vector<Posting>> postings;
        void close();
        const std::vector<Posting>* find(std::uint64_t hash) const;
    };
    struct Match {
        std::int64_t pattern = -1;
        double ratio = 0;
        std::size_t begin = 0, end = 0;  // tokens
        bool reached = false;
    };
    struct Hit {
        std::uint32_t pattern, position, offset;
    };

    Phrase phrase(const pybind11::str& text, Unit unit);
    void scan_unit(Unit unit, Match& best, std::size_t& first, std::size_t& last);
    bool equal(const Phrase& phrase, std::size_t offset, std::size_t count, Unit unit, std::size_t position) const;
    void match_ngrams(Unit unit, Match& best);
    void match_whole(Unit unit, const Posting& posting, std::size_t position, Match& best);
    static void improve(Match& best, const Match& match);

    const Folding& folding_;
    Lengths lengths_[2];
    std::size_t common_;
    std::vector<Pattern> patterns_;
    Table tables_[2][3];  // by unit; n-grams, short texts, starts
    Folded text_;
    std::vector<std::uint64_t> tokens_, grams_;
    std::vector<Hit> hits_;
};

}  // namespace aquila::text
