#include "ngram_index.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>
#include <utility>

namespace aquila::text {
namespace {

enum { kNgrams, kShort, kStarts };

Unit checked(std::uint8_t unit) {
    if (unit > 1) throw pybind11::value_error("a pattern is counted in characters (0) or words (1)");
    return static_cast<Unit>(unit);
}

// Calls found(position, hash) for the n-grams of `tokens`, n at a time. Rabin-Karp modulo 2^64 with an odd base: the
// token hashes are mixed, so that every bit of the sum is.
template <class Found>
inline void roll(const std::vector<std::uint64_t>& tokens, std::size_t n, Found&& found) {
    if (n == 0 || tokens.size() < n) return;
    constexpr std::uint64_t kBase = 0x9E3779B97F4A7C15ull;
    std::uint64_t power = 1, hash = 0;
    for (std::size_t k = 0; k < n; ++k) power *= kBase, hash = hash * kBase + tokens[k];
    found(std::size_t{0}, hash);
    for (std::size_t i = n; i < tokens.size(); ++i) {
        hash = hash * kBase + tokens[i] - tokens[i - n] * power;
        found(i - n + 1, hash);
    }
}

// A power of two of at least `least`, as the shift that leaves its bits of a hash.
int shift_for(std::size_t least) {
    int bits = 6;
    while ((std::size_t{1} << bits) < least) ++bits;
    return 64 - bits;
}

}  // namespace

void NgramIndex::Table::close() {
    std::sort(postings.begin(), postings.end(), [](const Posting& a, const Posting& b) {
        return std::tie(a.hash, a.pattern, a.phrase, a.offset) < std::tie(b.hash, b.pattern, b.phrase, b.offset);
    });
    filter_shift = shift_for(postings.size() / 4);
    slots_shift = shift_for(2 * postings.size());
    filter.assign(std::size_t{1} << (64 - filter_shift), 0);
    slots.assign(std::size_t{1} << (64 - slots_shift), 0);
    for (std::size_t p = 0; p < postings.size(); ++p) {
        const std::uint64_t hash = postings[p].hash;
        if (p && postings[p - 1].hash == hash) continue;
        filter[hash >> filter_shift] |= bits_of(hash);
        std::size_t slot = hash >> slots_shift;
        while (slots[slot]) slot = (slot + 1) & (slots.size() - 1);
        slots[slot] = static_cast<std::uint32_t>(p + 1);
    }
}

std::size_t NgramIndex::Table::find(std::uint64_t hash) const {
    for (std::size_t slot = hash >> slots_shift; slots[slot]; slot = (slot + 1) & (slots.size() - 1))
        if (postings[slots[slot] - 1].hash == hash) return slots[slot] - 1;
    return postings.size();
}

std::uint32_t NgramIndex::add_phrase(const pybind11::str& text, Unit unit) {
    fold(folding_, text, false, text_);
    Phrase made;
    made.characters = text_.characters;
    for (std::size_t t = 0; t < text_.tokens(unit); ++t)
        made.ends.push_back(static_cast<std::uint32_t>(text_.end(unit, t)));
    hash_tokens(text_, unit, made.hashes);
    std::uint64_t hash = made.hashes.size();
    for (const std::uint64_t token : made.hashes) hash = mix(hash ^ token) + token;
    const auto equals = phrase_numbers_.equal_range(hash);
    for (auto known = equals.first; known != equals.second; ++known)
        if (phrases_[known->second].characters == made.characters && phrases_[known->second].ends == made.ends)
            return known->second;
    phrases_.push_back(std::move(made));
    const auto number = static_cast<std::uint32_t>(phrases_.size() - 1);
    phrase_numbers_.emplace(hash, number);
    return number;
}

std::int64_t NgramIndex::add_text(const pybind11::str& text, std::uint8_t unit) {
    const Unit counted = checked(unit);
    const std::uint32_t phrase = add_phrase(text, counted);
    if (phrases_[phrase].ends.size() < lengths_[unit].whole) return -1;
    patterns_.push_back({counted, {phrase}, 0});
    return static_cast<std::int64_t>(patterns_.size()) - 1;
}

std::int64_t NgramIndex::add_texts(const std::vector<pybind11::str>& texts, std::uint8_t unit, std::size_t least) {
    Pattern pattern{checked(unit), {}, 0};
    std::size_t tokens = 0, longest = 0;
    for (const auto& text : texts) {
        const std::uint32_t phrase = add_phrase(text, pattern.unit);
        const std::size_t size = phrases_[phrase].ends.size();
        if (!size) continue;
        tokens += size;
        longest = std::max(longest, size);
        pattern.phrases.push_back(phrase);
    }
    if (pattern.phrases.size() < 2 || longest < lengths_[unit].start || tokens < least) return -1;
    patterns_.push_back(std::move(pattern));
    return static_cast<std::int64_t>(patterns_.size()) - 1;
}

int NgramIndex::kind_of(const Pattern& pattern) const {
    if (pattern.phrases.size() > 1) return kStarts;
    return phrases_[pattern.phrases[0]].ends.size() < lengths_[static_cast<int>(pattern.unit)].ngram ? kShort : kNgrams;
}

void NgramIndex::finish() {
    for (int unit = 0; unit < 2; ++unit)
        for (const int kind : {kNgrams, kShort, kStarts}) index(static_cast<Unit>(unit), kind);
    phrase_numbers_.clear();
}

void NgramIndex::index(Unit unit, int kind) {
    const Lengths& lengths = lengths_[static_cast<int>(unit)];
    Table& table = tables_[static_cast<int>(unit)][kind];
    table.length = kind == kNgrams ? lengths.ngram : kind == kShort ? lengths.whole : lengths.start;
    // Of patterns with the same phrases the first answers for all.
    std::map<std::vector<std::uint32_t>, std::uint32_t> known;
    std::vector<Posting> grams;
    for (std::uint32_t number = 0; number < patterns_.size(); ++number) {
        const Pattern& pattern = patterns_[number];
        if (pattern.unit != unit || kind_of(pattern) != kind) continue;
        if (kind != kNgrams) {
            std::vector<std::uint32_t> phrases = pattern.phrases;
            std::sort(phrases.begin(), phrases.end());
            const auto first = known.emplace(std::move(phrases), number);
            if (!first.second) {
                twins_[first.first->second].push_back(number);
                continue;
            }
        }
        for (std::uint32_t p = 0; p < pattern.phrases.size(); ++p)
            roll(phrases_[pattern.phrases[p]].hashes, table.length, [&](std::size_t offset, std::uint64_t hash) {
                if (kind == kStarts && offset) return;
                grams.push_back({hash, number, p, static_cast<std::uint32_t>(offset)});
            });
    }
    std::sort(grams.begin(), grams.end(), [](const Posting& a, const Posting& b) {
        return std::tie(a.hash, a.pattern, a.phrase, a.offset) < std::tie(b.hash, b.pattern, b.phrase, b.offset);
    });
    // Of each pattern the rarest n-gram, by which it is found where it is looked for whole.
    struct Anchor {
        std::size_t patterns;
        Posting gram;
    };
    std::unordered_map<std::uint32_t, Anchor> anchors;
    for (std::size_t first = 0, last; first < grams.size(); first = last) {
        std::size_t patterns = 0;
        for (last = first; last < grams.size() && grams[last].hash == grams[first].hash; ++last)
            patterns += last == first || grams[last].pattern != grams[last - 1].pattern;
        for (std::size_t g = first; g < last; ++g) {
            const Posting& gram = grams[g];
            if (g > first && grams[g - 1].pattern == gram.pattern) continue;
            const auto placed = anchors.try_emplace(gram.pattern, Anchor{patterns, gram});
            Anchor& anchor = placed.first->second;
            if (std::tie(patterns, gram.phrase, gram.offset) <
                std::tie(anchor.patterns, anchor.gram.phrase, anchor.gram.offset))
                anchor = {patterns, gram};
            if (kind != kNgrams || patterns > common_) continue;
            table.postings.push_back(gram);
            ++patterns_[gram.pattern].distinct;
        }
    }
    for (const auto& anchor : anchors)
        if (!patterns_[anchor.first].distinct) table.postings.push_back(anchor.second.gram);
    table.close();
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

void NgramIndex::keep(Match& best, const Match& match) {
    if (!every_) improve(best, match);
    else if (match.reached) improve(found_[static_cast<std::uint32_t>(match.pattern)], match);
}

// Where a phrase stands in the text; looked for once a text.
const std::vector<std::size_t>& NgramIndex::places_of(std::uint32_t phrase, Unit unit) {
    const auto placed = places_.try_emplace(phrase);
    std::vector<std::size_t>& places = placed.first->second;
    if (!placed.second) return places;
    const Phrase& wanted = phrases_[phrase];
    const std::size_t size = wanted.hashes.size();
    for (std::size_t at = 0; at + size <= tokens_.size(); ++at)
        if (tokens_[at] == wanted.hashes[0] && equal(wanted, 0, size, unit, at)) places.push_back(at);
    return places;
}

// All phrases stand near the anchor, which begins at `start`, in any order; a pattern of one phrase is the anchor.
void NgramIndex::match_whole(Unit unit, const Posting& posting, std::size_t start, Match& best) {
    const Pattern& pattern = patterns_[posting.pattern];
    const std::size_t size = phrases_[pattern.phrases[posting.phrase]].ends.size();
    Match match{static_cast<std::int64_t>(posting.pattern), 1.0, start, start + size, true};
    std::size_t tokens = 0;
    for (const std::uint32_t phrase : pattern.phrases) tokens += phrases_[phrase].ends.size();
    const std::size_t window = tokens + 4 * pattern.phrases.size();  // room for letters and marks between options
    const std::size_t low = start > window ? start - window : 0;
    const std::size_t high = std::min(tokens_.size(), start + size + window);
    for (std::size_t p = 0; p < pattern.phrases.size(); ++p) {
        if (p == posting.phrase) continue;
        const std::vector<std::size_t>& places = places_of(pattern.phrases[p], unit);
        const auto at = std::lower_bound(places.begin(), places.end(), low);
        const std::size_t other = phrases_[pattern.phrases[p]].ends.size();
        if (at == places.end() || *at + other > high) return;
        match.begin = std::min(match.begin, *at);
        match.end = std::max(match.end, *at + other);
    }
    keep(best, match);
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
        const std::size_t tokens = phrases_[pattern.phrases[0]].ends.size();
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
        keep(best, match);
        first = last;
    }
}

void NgramIndex::scan_table(Unit unit, const Table& table, Match& best) {
    // Gathered first without a branch, so that the processor has several looks into the filter under way.
    std::pair<std::size_t, std::uint64_t> passed[64];
    std::size_t count = 0;
    const auto flush = [&] {
        for (std::size_t c = 0; c < count; ++c) look_up(unit, table, passed[c].first, passed[c].second, best);
        count = 0;
    };
    roll(tokens_, table.length, [&](std::size_t position, std::uint64_t hash) {
        passed[count] = {position, hash};
        count += table.may_hold(hash);
        if (count == std::size(passed)) flush();
    });
    flush();
}

void NgramIndex::look_up(Unit unit, const Table& table, std::size_t position, std::uint64_t hash, Match& best) {
    std::uint32_t compared = ~0u;  // the anchor phrase that was compared last, and what came out
    std::size_t compared_at = 0;
    bool stands = false;
    for (std::size_t p = table.find(hash); p < table.postings.size() && table.postings[p].hash == hash; ++p) {
        const Posting& posting = table.postings[p];
        const Pattern& pattern = patterns_[posting.pattern];
        const std::uint32_t number = pattern.phrases[posting.phrase];
        const Phrase& phrase = phrases_[number];
        if (pattern.distinct) {
            if (equal(phrase, posting.offset, table.length, unit, position))
                hits_.push_back({posting.pattern, static_cast<std::uint32_t>(position), posting.offset});
            continue;
        }
        // Nothing is better than the whole of an earlier pattern.
        if (best.reached && best.ratio == 1.0 && best.pattern <= posting.pattern) continue;
        if (position < posting.offset) continue;
        const std::size_t start = position - posting.offset;
        if (number != compared || start != compared_at)
            compared = number, compared_at = start, stands = equal(phrase, 0, phrase.ends.size(), unit, start);
        if (stands) match_whole(unit, posting, start, best);
    }
}

void NgramIndex::search(Unit unit, Match& best) {
    hash_tokens(text_, unit, tokens_);
    hits_.clear();
    if (!places_.empty()) places_.clear();
    for (const Table& table : tables_[static_cast<int>(unit)])
        if (!table.postings.empty()) scan_table(unit, table, best);
    match_ngrams(unit, best);
}

// Characters of the text, from tokens.
std::pair<std::size_t, std::size_t> NgramIndex::span(Unit unit, const Match& match) const {
    return {text_.places[text_.begin(unit, match.begin)], text_.places[text_.end(unit, match.end - 1) - 1] + 1};
}

void NgramIndex::scan_unit(Unit unit, Match& best, std::size_t& first, std::size_t& last) {
    Match match;
    search(unit, match);
    if (match.pattern < 0) return;
    const Match before = best;
    improve(best, match);
    if (best.pattern == before.pattern && best.ratio == before.ratio) return;
    std::tie(first, last) = span(unit, best);
}

void NgramIndex::collect(Unit unit, std::int64_t text, std::vector<Found>& all) {
    Match unused;
    found_.clear();
    search(unit, unused);
    for (const auto& entry : found_) {
        const auto [first, last] = span(unit, entry.second);
        Found found{text, entry.second.pattern, entry.second.ratio, static_cast<std::int64_t>(first),
                    static_cast<std::int64_t>(last)};
        all.push_back(found);
        const auto twins = twins_.find(entry.first);
        if (twins == twins_.end()) continue;
        for (const std::uint32_t twin : twins->second) {
            found.pattern = twin;
            all.push_back(found);
        }
    }
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

pybind11::tuple NgramIndex::scan_all(const pybind11::list& texts) {
    std::vector<Found> all;
    every_ = true;
    try {
        for (std::size_t i = 0; i < texts.size(); ++i) {
            fold(folding_, PyList_GET_ITEM(texts.ptr(), static_cast<Py_ssize_t>(i)), false, text_);
            if (text_.han) collect(Unit::kCharacters, static_cast<std::int64_t>(i), all);
            collect(Unit::kWords, static_cast<std::int64_t>(i), all);
        }
    } catch (...) {
        every_ = false;
        throw;
    }
    every_ = false;
    std::sort(all.begin(), all.end(), [](const Found& a, const Found& b) {
        return std::tie(a.text, a.pattern) < std::tie(b.text, b.pattern);
    });
    const std::size_t count = all.size();
    pybind11::array_t<std::int64_t> places(count), patterns(count), spans({count, std::size_t{2}});
    pybind11::array_t<double> ratios(count);
    for (std::size_t m = 0; m < count; ++m) {
        places.mutable_at(m) = all[m].text;
        patterns.mutable_at(m) = all[m].pattern;
        ratios.mutable_at(m) = all[m].ratio;
        spans.mutable_at(m, 0) = all[m].first;
        spans.mutable_at(m, 1) = all[m].last;
    }
    return pybind11::make_tuple(places, patterns, ratios, spans);
}

}  // namespace aquila::text
