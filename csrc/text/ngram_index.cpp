#include "ngram_index.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_set>

namespace aquila::text {
namespace {

enum { kNgrams, kShort, kStarts };

Unit checked(std::uint8_t unit) {
    if (unit > 1) throw pybind11::value_error("a pattern is counted in characters (0) or words (1)");
    return static_cast<Unit>(unit);
}

}  // namespace

void NgramIndex::Table::close() {
    std::size_t bits = 1 << 12;
    while (bits < 32 * postings.size() && bits < (std::size_t{1} << 31)) bits *= 2;
    filter.assign(bits / 64, 0);
    for (const auto& entry : postings) filter[(entry.first & (bits - 1)) / 64] |= 1ull << (entry.first & 63);
}

const std::vector<NgramIndex::Posting>* NgramIndex::Table::find(std::uint64_t hash) const {
    if (!(filter[(hash & (64 * filter.size() - 1)) / 64] >> (hash & 63) & 1)) return nullptr;
    const auto found = postings.find(hash);
    return found == postings.end() ? nullptr : &found->second;
}

NgramIndex::Phrase NgramIndex::phrase(const pybind11::str& text, Unit unit) {
    fold(folding_, text, false, text_);
    Phrase made;
    made.characters = text_.characters;
    for (std::size_t t = 0; t < text_.tokens(unit); ++t) made.ends.push_back(static_cast<std::uint32_t>(text_.end(unit, t)));
    hash_tokens(text_, unit, made.hashes);
    return made;
}

std::int64_t NgramIndex::add_text(const pybind11::str& text, std::uint8_t unit) {
    const Unit counted = checked(unit);
    Phrase made = phrase(text, counted);
    if (made.ends.size() < lengths_[unit].whole) return -1;
    patterns_.push_back({counted, {std::move(made)}, 0});
    return static_cast<std::int64_t>(patterns_.size()) - 1;
}

std::int64_t NgramIndex::add_texts(const std::vector<pybind11::str>& texts, std::uint8_t unit, std::size_t least) {
    Pattern pattern{checked(unit), {}, 0};
    std::size_t tokens = 0, longest = 0;
    for (const auto& text : texts) {
        Phrase made = phrase(text, pattern.unit);
        if (made.ends.empty()) continue;
        tokens += made.ends.size();
        longest = std::max(longest, made.ends.size());
        pattern.phrases.push_back(std::move(made));
    }
    if (pattern.phrases.size() < 2 || longest < lengths_[unit].start || tokens < least) return -1;
    patterns_.push_back(std::move(pattern));
    return static_cast<std::int64_t>(patterns_.size()) - 1;
}

void NgramIndex::finish() {
    // How many patterns hold each n-gram, by table.
    std::unordered_map<std::uint64_t, std::uint32_t> counts[2][3];
    std::vector<std::uint64_t> grams;
    const auto table_of = [&](const Pattern& pattern) {
        if (pattern.phrases.size() > 1) return static_cast<int>(kStarts);
        return pattern.phrases[0].ends.size() < lengths_[static_cast<int>(pattern.unit)].ngram ? int{kShort} : int{kNgrams};
    };
    for (int unit = 0; unit < 2; ++unit) {
        const std::size_t lengths[3] = {lengths_[unit].ngram, lengths_[unit].whole, lengths_[unit].start};
        for (int kind = 0; kind < 3; ++kind) tables_[unit][kind].length = lengths[kind];
    }
    for (const Pattern& pattern : patterns_) {
        const int unit = static_cast<int>(pattern.unit), kind = table_of(pattern);
        std::unordered_set<std::uint64_t> seen;
        for (const Phrase& phrase : pattern.phrases) {
            hash_ngrams(phrase.hashes, tables_[unit][kind].length, grams);
            if (kind == kStarts && !grams.empty()) grams.resize(1);
            seen.insert(grams.begin(), grams.end());
        }
        for (const std::uint64_t gram : seen) ++counts[unit][kind][gram];
    }
    for (std::uint32_t number = 0; number < patterns_.size(); ++number) {
        Pattern& pattern = patterns_[number];
        const int unit = static_cast<int>(pattern.unit), kind = table_of(pattern);
        Table& table = tables_[unit][kind];
        const auto& count = counts[unit][kind];
        // Looked for whole: found by its rarest n-gram.
        Posting anchor{number, 0, 0};
        std::uint32_t rarest = ~0u;
        std::uint64_t anchor_gram = 0;
        std::unordered_set<std::uint64_t> seen;
        for (std::uint32_t p = 0; p < pattern.phrases.size(); ++p) {
            hash_ngrams(pattern.phrases[p].hashes, table.length, grams);
            if (kind == kStarts && !grams.empty()) grams.resize(1);
            for (std::uint32_t offset = 0; offset < grams.size(); ++offset) {
                const std::uint32_t frequency = count.at(grams[offset]);
                if (frequency < rarest) rarest = frequency, anchor = {number, p, offset}, anchor_gram = grams[offset];
                if (kind != kNgrams || frequency > common_ || !seen.insert(grams[offset]).second) continue;
                table.postings[grams[offset]].push_back({number, 0, offset});
                ++pattern.distinct;
            }
        }
        if (!pattern.distinct) table.postings[anchor_gram].push_back(anchor);
    }
    for (auto& unit : tables_)
        for (Table& table : unit) table.close();
}

bool NgramIndex::equal(const Phrase& phrase, std::size_t offset, std::size_t count, Unit unit, std::size_t position) const {
    if (position + count > tokens_.size()) return false;
    for (std::size_t k = 0; k < count; ++k) {
        if (phrase.hashes[offset + k] != tokens_[position + k]) return false;
        const std::size_t begin = text_.begin(unit, position + k), size = text_.end(unit, position + k) - begin;
        const std::size_t own = offset + k ? phrase.ends[offset + k - 1] : 0;
        if (phrase.ends[offset + k] - own != size) return false;
        if (!std::equal(phrase.characters.begin() + own, phrase.characters.begin() + own + size,
                        text_.characters.begin() + begin))
            return false;
    }
    return true;
}

void NgramIndex::improve(Match& best, const Match& match) {
    if (match.reached != best.reached ? match.reached : match.ratio > best.ratio) best = match;
    else if (match.reached == best.reached && match.ratio == best.ratio && match.pattern < best.pattern) best = match;
}

// All phrases stand near the anchor, in any order; a pattern of one phrase stands there itself.
void NgramIndex::match_whole(Unit unit, const Posting& posting, std::size_t position, Match& best) {
    const Pattern& pattern = patterns_[posting.pattern];
    const Phrase& anchor = pattern.phrases[posting.phrase];
    if (position < posting.offset) return;
    const std::size_t start = position - posting.offset;
    if (!equal(anchor, 0, anchor.ends.size(), unit, start)) return;
    Match match{static_cast<std::int64_t>(posting.pattern), 1.0, start, start + anchor.ends.size(), true};
    std::size_t tokens = 0;
    for (const Phrase& phrase : pattern.phrases) tokens += phrase.ends.size();
    const std::size_t window = tokens + 4 * pattern.phrases.size();  // room for letters and marks between options
    const std::size_t low = start > window ? start - window : 0;
    const std::size_t high = std::min(tokens_.size(), start + anchor.ends.size() + window);
    for (std::size_t p = 0; p < pattern.phrases.size(); ++p) {
        if (p == posting.phrase) continue;
        const Phrase& phrase = pattern.phrases[p];
        bool found = false;
        for (std::size_t at = low; !found && at + phrase.ends.size() <= high; ++at)
            if ((found = equal(phrase, 0, phrase.ends.size(), unit, at))) {
                match.begin = std::min(match.begin, at);
                match.end = std::max(match.end, at + phrase.ends.size());
            }
        if (!found) return;
    }
    improve(best, match);
}

// Of each pattern, the most of its n-grams that stand within twice its length.
void NgramIndex::match_ngrams(Unit unit, Match& best) {
    const std::size_t n = lengths_[static_cast<int>(unit)].ngram;
    std::sort(hits_.begin(), hits_.end(), [](const Hit& a, const Hit& b) {
        return a.pattern != b.pattern ? a.pattern < b.pattern : a.position < b.position;
    });
    std::vector<std::uint32_t> seen;  // by offset
    for (std::size_t first = 0; first < hits_.size();) {
        const Pattern& pattern = patterns_[hits_[first].pattern];
        std::size_t last = first;
        while (last < hits_.size() && hits_[last].pattern == hits_[first].pattern) ++last;
        const std::size_t tokens = pattern.phrases[0].ends.size();
        seen.assign(tokens, 0);
        std::size_t distinct = 0, most = 0, from = first, to = first;
        for (std::size_t low = first, high = first; high < last; ++high) {
            distinct += !seen[hits_[high].offset]++;
            while (hits_[high].position - hits_[low].position > 2 * tokens) distinct -= !--seen[hits_[low++].offset];
            if (distinct > most) most = distinct, from = low, to = high;
        }
        Match match{static_cast<std::int64_t>(hits_[first].pattern),
                    static_cast<double>(most) / static_cast<double>(pattern.distinct), hits_[from].position,
                    hits_[to].position + n, false};
        match.reached = match.ratio >= lengths_[static_cast<int>(unit)].ratio;
        improve(best, match);
        first = last;
    }
}

void NgramIndex::scan_unit(Unit unit, Match& best, std::size_t& first, std::size_t& last) {
    hash_tokens(text_, unit, tokens_);
    hits_.clear();
    Match match;
    for (const Table& table : tables_[static_cast<int>(unit)]) {
        if (table.postings.empty()) continue;
        hash_ngrams(tokens_, table.length, grams_);
        for (std::size_t position = 0; position < grams_.size(); ++position) {
            const std::vector<Posting>* postings = table.find(grams_[position]);
            if (!postings) continue;
            for (const Posting& posting : *postings) {
                const Pattern& pattern = patterns_[posting.pattern];
                if (!pattern.distinct)
                    match_whole(unit, posting, position, match);
                else if (equal(pattern.phrases[0], posting.offset, table.length, unit, position))
                    hits_.push_back({posting.pattern, static_cast<std::uint32_t>(position), posting.offset});
            }
        }
    }
    match_ngrams(unit, match);
    if (match.pattern < 0) return;
    const Match before = best;
    improve(best, match);
    if (best.pattern == before.pattern && best.ratio == before.ratio) return;
    first = text_.places[text_.begin(unit, best.begin)];
    last = text_.places[text_.end(unit, best.end - 1) - 1] + 1;
}

pybind11::tuple NgramIndex::scan(const pybind11::list& texts) {
    const std::size_t count = texts.size();
    pybind11::array_t<std::int64_t> patterns(count);
    pybind11::array_t<double> ratios(count);
    pybind11::array_t<std::int64_t> spans({count, std::size_t{2}});
    for (std::size_t i = 0; i < count; ++i) {
        fold(folding_, PyList_GET_ITEM(texts.ptr(), static_cast<Py_ssize_t>(i)), false, text_);
        Match best;
        std::size_t first = 0, last = 0;
        // A pattern of characters is Chinese: a text without a Han character holds at most its English terms.
        if (text_.han) scan_unit(Unit::kCharacters, best, first, last);
        scan_unit(Unit::kWords, best, first, last);
        patterns.mutable_at(i) = best.pattern;
        ratios.mutable_at(i) = best.ratio;
        spans.mutable_at(i, 0) = static_cast<std::int64_t>(first);
        spans.mutable_at(i, 1) = static_cast<std::int64_t>(last);
    }
    return pybind11::make_tuple(patterns, ratios, spans);
}

}  // namespace aquila::text
