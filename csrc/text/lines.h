// Statistics of lines and paragraphs, and C4's editing of lines.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "columns.h"
#include "counter.h"
#include "settings.h"

namespace aquila::text {

// Of a stretch of memory, eight bytes at a time.
inline uint64_t hash_bytes(const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    uint64_t hash = mix(size + 1), word = 0;
    for (; size >= 8; bytes += 8, size -= 8) {
        std::memcpy(&word, bytes, 8);
        hash = (hash ^ word) * BASE;
        hash ^= hash >> 32;
    }
    word = 0;
    if (size) std::memcpy(&word, bytes, size);
    return mix(hash ^ word) + size;
}

// The first place of [first, last) that holds `code`, or `last`.
template <typename Char>
int64_t find(const Char* text, int64_t first, int64_t last, char code) {
    if (first >= last) return last;
    if constexpr (sizeof(Char) == 1) {
        const void* place = std::memchr(text + first, code, size_t(last - first));
        return place ? static_cast<const Char*>(place) - text : last;
    }
    while (first < last && uint32_t(text[first]) != uint32_t(code)) ++first;
    return first;
}

template <typename Char>
struct Lines {
    const Char* text;
    int64_t length;
    const uint16_t* characters;

    bool has(int64_t place, unsigned flags) const { return characters[text[place]] & flags; }
    int64_t skip_blanks(int64_t first, int64_t last) const {
        while (first < last && has(first, BLANK)) ++first;
        return first;
    }
    int64_t cut_blanks(int64_t first, int64_t last) const {
        while (last > first && has(last - 1, BLANK)) --last;
        return last;
    }

    // Calls visit(first, last) for each line of str.splitlines.
    template <typename Visit>
    void each(Visit&& visit) const {
        for (int64_t first = 0; first < length;) {
            int64_t last = first;
            while (last < length && !has(last, LINE_BREAK)) ++last;
            visit(first, last);
            const bool pair = last + 1 < length && text[last] == '\r' && text[last + 1] == '\n';
            first = last + (pair ? 2 : 1);
        }
    }

    bool ends_with_ellipsis(int64_t first, int64_t last) const {
        if (last > first && uint32_t(text[last - 1]) == 0x2026) return true;
        return last - first >= 3 && text[last - 1] == '.' && text[last - 2] == '.' && text[last - 3] == '.';
    }
};

// Sentences of a line: a run of end marks and closing quotes ends one if it holds 。！？, or .!?… before a blank.
template <typename Char>
int64_t count_sentences(const Lines<Char>& lines, int64_t first, int64_t last) {
    constexpr unsigned MARKS = SENTENCE_STRONG | SENTENCE_WEAK | CLOSING;
    int64_t sentences = 0;
    bool open = false;
    for (int64_t place = first; place < last;) {
        unsigned seen = lines.characters[lines.text[place]];
        if (!(seen & BLANK)) open = true;
        ++place;
        if (!(seen & MARKS)) continue;
        for (; place < last && lines.has(place, MARKS); ++place) seen |= lines.characters[lines.text[place]];
        const bool before_blank = place == last || lines.has(place, BLANK);
        if ((seen & SENTENCE_STRONG) || ((seen & SENTENCE_WEAK) && before_blank)) {
            ++sentences;
            open = false;
        }
    }
    return sentences + (open ? 1 : 0);
}

// Lines and paragraphs that stood before (Gopher), and FineWeb's statistics of lines.
template <typename Char>
void line_statistics(const Lines<Char>& lines, const Settings& settings, Counter& seen, double* row) {
    const Char* text = lines.text;
    const int64_t length = lines.length;
    int64_t count = 0, bullets = 0, ellipses = 0, longest = 0, total = 0;
    lines.each([&](int64_t first, int64_t last) {
        ++count;
        total += last - first;
        longest = std::max(longest, last - first);
        const int64_t begin = lines.skip_blanks(first, last), end = lines.cut_blanks(begin, last);
        bullets += begin < end && (text[begin] == '-' || uint32_t(text[begin]) == 0x2022);
        ellipses += lines.ends_with_ellipsis(begin, end);
    });
    row[COLUMN_bullet_lines] = count ? double(bullets) / count : 0.0;
    row[COLUMN_ellipsis_lines] = count ? double(ellipses) / count : 0.0;
    row[COLUMN_mean_line_length] = count ? double(total) / count : 0.0;
    row[COLUMN_max_line_length] = double(longest);

    // Lines between newlines. Gopher splits at runs of them, so an empty line counts at either end of the text only.
    int64_t newlines = 0, filled = 0, inked = 0, terminal = 0, brief = 0;
    int64_t repeated = 0, repeated_characters = 0, repeated_ink_characters = 0;
    seen.clear(16);
    for (int64_t first = 0; first <= length;) {
        const int64_t last = find(text, first, length, '\n');
        newlines += last < length;
        if (last > first) {
            ++filled;
            const bool ink = lines.skip_blanks(first, last) < last;
            const size_t known = seen.size();
            const bool again = seen.add(hash_bytes(text + first, size_t(last - first) * sizeof(Char))) < known;
            repeated += again;
            repeated_characters += again ? last - first : 0;
            repeated_ink_characters += again && ink ? last - first : 0;
            inked += ink;
            terminal += ink && lines.has(last - 1, TERMINAL);
            brief += ink && last - first <= settings.short_line;
        }
        first = last + 1;
    }
    const int64_t begins = length && text[0] == '\n', ends = length && text[length - 1] == '\n';
    row[COLUMN_duplicate_lines] =
        filled + begins + ends ? double(repeated + (begins && ends)) / double(filled + begins + ends) : 0.0;
    row[COLUMN_duplicate_line_characters] = length ? double(repeated_characters) / length : 0.0;
    row[COLUMN_terminal_lines] = inked ? double(terminal) / inked : 0.0;
    row[COLUMN_short_lines] = inked ? double(brief) / inked : 0.0;
    row[COLUMN_duplicate_ink_lines] = inked ? double(repeated_ink_characters) / double(length - newlines) : 0.0;
    row[COLUMN_newlines_per_word] = double(newlines);  // divided by the words where they are known

    // Paragraphs of the stripped text: between runs of two newlines and more.
    const int64_t begin = lines.skip_blanks(0, length), end = lines.cut_blanks(begin, length);
    int64_t paragraphs = 0;
    repeated = repeated_characters = 0;
    seen.clear(16);
    for (int64_t first = begin; first < end;) {
        int64_t last = find(text, first, end, '\n');
        while (last + 1 < end && text[last + 1] != '\n') last = find(text, last + 1, end, '\n');
        if (last + 1 >= end) last = end;
        ++paragraphs;
        const size_t known = seen.size();
        if (seen.add(hash_bytes(text + first, size_t(last - first) * sizeof(Char))) < known) {
            ++repeated;
            repeated_characters += last - first;
        }
        first = last;
        while (first < end && text[first] == '\n') ++first;
    }
    row[COLUMN_duplicate_paragraphs] = paragraphs ? double(repeated) / paragraphs : 0.0;
    row[COLUMN_duplicate_paragraph_characters] = length ? double(repeated_characters) / length : 0.0;
}

// Copies a line without [1], [], [edit] and [citation needed] into `cleaned`; returns how many there were.
template <typename Char>
int64_t remove_citations(const Lines<Char>& line, std::vector<Char>& cleaned) {
    cleaned.clear();
    int64_t removed = 0;
    const auto starts_with = [&](int64_t place, const char* word) {
        for (; *word; ++word, ++place)
            if (place >= line.length || uint32_t(line.text[place]) != uint32_t(*word)) return false;
        return true;
    };
    for (int64_t place = 0; place < line.length;) {
        int64_t end = 0;
        if (line.text[place] == '[') {
            int64_t digits = place + 1;
            while (digits < line.length && line.has(digits, DECIMAL)) ++digits;
            if (digits < line.length && line.text[digits] == ']') end = digits + 1;
            else if (starts_with(place, "[edit]")) end = place + 6;
            else if (starts_with(place, "[citation needed]")) end = place + 17;
        }
        if (end) {
            ++removed;
            place = end;
        } else {
            cleaned.push_back(line.text[place++]);
        }
    }
    return removed;
}

// C4's rules for lines (tensorflow_datasets/text/c4_utils.py) in datatrove's order: counts what they do, and appends the
// lines that stay to `edited`, stripped and joined by newlines.
template <typename Char>
void edit_lines(const Lines<Char>& lines, const Settings& settings, std::vector<Char>& edited, double* row) {
    const LineRules& rules = settings.line_rules;
    std::vector<Char> cleaned;
    bool first_line = true;
    const auto holds = [&](char code) { return find(lines.text, 0, lines.length, code) < lines.length; };
    const bool citations = rules.remove_citations && holds('['), brackets = holds('{');
    lines.each([&](int64_t first, int64_t last) {
        ++row[COLUMN_lines];
        first = lines.skip_blanks(first, last);
        last = lines.cut_blanks(first, last);
        int64_t words = 0, longest = 0;
        const bool counted = rules.min_words >= 0 || (rules.max_word_length >= 0 && last - first > rules.max_word_length);
        for (int64_t place = first; counted && place < last;) {
            const int64_t begin = place;
            while (place < last && !lines.has(place, BLANK)) ++place;
            ++words;
            longest = std::max(longest, place - begin);
            place = lines.skip_blanks(place, last);
        }
        if (rules.max_word_length >= 0 && longest > rules.max_word_length) {
            ++row[COLUMN_dropped_long_word];
            return;
        }
        Lines<Char> line = {lines.text + first, last - first, lines.characters};
        if (citations && find(line.text, 0, line.length, '[') < line.length) {
            row[COLUMN_citations] += double(remove_citations(line, cleaned));
            line = {cleaned.data(), int64_t(cleaned.size()), lines.characters};
        }
        if (rules.need_terminal) {
            const Char mark = line.length ? line.text[line.length - 1] : Char(0);
            const bool ends = mark == '.' || mark == '?' || mark == '!' || mark == '"' || mark == '\'';
            const bool dots = mark == '.' && line.ends_with_ellipsis(0, line.length);
            if (!ends || dots) {
                ++row[COLUMN_dropped_no_terminal];
                return;
            }
        }
        if (rules.min_words >= 0 && words < rules.min_words) {
            ++row[COLUMN_dropped_few_words];
            return;
        }
        bool found[GROUPS] = {};
        settings.line_phrases.search(
            line.text, line.length, lines.characters, [&](int64_t, int64_t, int group) { found[group] = true; });
        if (found[LOREM_IPSUM]) row[COLUMN_lorem_ipsum] = 1;
        if (rules.drop_javascript && found[JAVASCRIPT]) {
            ++row[COLUMN_dropped_javascript];
            return;
        }
        if (brackets && find(line.text, 0, line.length, '{') < line.length)
            row[COLUMN_curly_bracket] = 1;
        if (rules.drop_policy && found[POLICY]) {
            ++row[COLUMN_dropped_policy];
            return;
        }
        row[COLUMN_sentences] += double(count_sentences(line, 0, line.length));
        if (!first_line) edited.push_back('\n');
        first_line = false;
        edited.insert(edited.end(), line.text, line.text + line.length);
    });
    const Lines<Char> result = {edited.data(), int64_t(edited.size()), lines.characters};
    const int64_t begin = result.skip_blanks(0, result.length), end = result.cut_blanks(begin, result.length);
    edited.erase(edited.begin() + end, edited.end());
    edited.erase(edited.begin(), edited.begin() + begin);
}

}  // namespace aquila::text
