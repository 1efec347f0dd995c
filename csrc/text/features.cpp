// _text.Features: the statistics of every family of rules, in one call over the texts of a language.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bind.h"
#include "columns.h"
#include "lines.h"
#include "repetition.h"
#include "settings.h"

namespace py = pybind11;

namespace aquila::text {
namespace {

// Characters, by kind.
template <typename Char>
void character_statistics(const Char* text, int64_t length, const Settings& settings, double* row, int64_t& hashes,
                          int64_t& ellipses) {
    constexpr int64_t MOST = 255;  // additions before a byte overflows
    int64_t counts[KINDS] = {};
    for (int64_t first = 0; first < length; first += MOST) {
        const int64_t last = std::min(length, first + MOST);
        uint64_t sums = 0;
        for (int64_t place = first; place < last; ++place) {
            const uint32_t code = text[place];
            sums += code < 0x10000 ? settings.kinds[code] : kinds_of(code, settings.characters[code]);
        }
        for (int kind = 0; kind < KINDS; ++kind) counts[kind] += sums >> (8 * kind) & 0xFF;
    }
    hashes = counts[HASHES];
    ellipses = counts[ELLIPSES];
    for (int64_t place = 0; (place = find(text, place, length, '.')) < length;) {  // runs of dots, three by three
        const int64_t first = place;
        while (place < length && text[place] == '.') ++place;
        ellipses += (place - first) / 3;
    }
    const double total = length ? double(length) : 1.0, inked = counts[INK] ? double(counts[INK]) : 1.0;
    row[COLUMN_characters] = double(length);
    row[COLUMN_ink] = double(counts[INK]);
    row[COLUMN_special] = double(counts[INK] - counts[ALPHANUMERICS]) / total;
    row[COLUMN_digits] = double(counts[DIGITS]) / total;
    row[COLUMN_alphanumeric] = double(counts[ALPHANUMERICS]) / total;
    row[COLUMN_han] = double(counts[HANS]) / inked;
    row[COLUMN_traditional] = counts[HANS] ? double(counts[TRADITIONALS]) / double(counts[HANS]) : 0.0;
    row[COLUMN_broken] = double(counts[BROKENS]);  // phrases that tell of it are added
}

// An account's name or number after "微信", "QQ" and their like: 5 characters and more, at most 6 others between.
template <typename Char>
bool account_follows(const Char* text, int64_t place, int64_t length) {
    const auto is_account = [](uint32_t code) {
        return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z') ||
               code == '_' || code == '-' || code == '@' || code == '+';
    };
    const int64_t latest = std::min(length, place + 6);
    while (place < latest && !is_account(text[place])) {
        if (text[place] == '\n') return false;
        ++place;
    }
    int64_t end = place, digits = 0;
    for (; end < length && end < place + 40 && is_account(text[end]); ++end) digits += text[end] >= '0' && text[end] <= '9';
    return end - place >= 5 && digits >= 3;  // a word is no account
}

// Groups of phrases: characters that they cover, without what a former one of the group covered.
template <typename Char>
void phrase_statistics(const Char* text, int64_t length, const Settings& settings, double* row) {
    int64_t covered[GROUPS] = {}, until[GROUPS] = {}, solicitations = 0, account_until = 0;
    settings.phrases.search(text, length, settings.characters.data(), [&](int64_t first, int64_t last, int group) {
        if (group == SOLICITATION) {
            if (first >= account_until && account_follows(text, last, length)) {
                ++solicitations;
                account_until = last;
            }
            return;
        }
        if (group == LINK)  // to its end
            while (last < length && text[last] > 0x20 && uint32_t(text[last]) < 0x7F) ++last;
        covered[group] += std::max<int64_t>(0, last - std::max(first, until[group]));
        until[group] = std::max(until[group], last);
    });
    const double ink = row[COLUMN_ink] > 0 ? row[COLUMN_ink] : 1.0;
    row[COLUMN_flagged] = double(covered[FLAGGED]) / ink;
    row[COLUMN_boilerplate] = double(covered[BOILERPLATE]) / ink;
    row[COLUMN_advertising] = double(covered[ADVERTISING]) / ink;
    row[COLUMN_links] = double(covered[LINK]) / ink;
    row[COLUMN_solicitations] = double(solicitations);
    row[COLUMN_broken] = (row[COLUMN_broken] + double(covered[BROKEN_PHRASE])) / (length ? double(length) : 1.0);
}

// Telephone numbers of China and of North America: 1[3-9] and 9 digits, 0xx(x)-7 or 8, 400-xxx-xxxx, xxx-xxx-xxxx.
template <typename Char>
int64_t count_phones(const Char* text, int64_t length) {
    int64_t phones = 0;
    const auto digit = [&](int64_t place) { return place < length && text[place] >= '0' && text[place] <= '9'; };
    const auto run = [&](int64_t place) {
        int64_t size = 0;
        while (size < 12 && digit(place + size)) ++size;
        return size;
    };
    for (int64_t place = 0; place < length;) {
        if (!digit(place)) {
            ++place;
            continue;
        }
        const int64_t first = run(place);
        int64_t end = place + first;
        if (first == 11 && text[place] == '1' && text[place + 1] >= '3') {
            ++phones;
        } else if ((first == 3 || first == 4) && end < length && text[end] == '-') {
            const int64_t second = run(end + 1);
            const bool land = text[place] == '0' && (second == 7 || second == 8);
            const int64_t next = end + 1 + second;
            const bool three = first == 3 && second == 3 && next < length && text[next] == '-' && run(next + 1) == 4;
            if (land || three) {
                ++phones;
                end = next + (three ? 5 : 0);
            }
        }
        place = end;
        while (digit(place)) ++place;
    }
    return phones;
}

// Calls visit(first, last) for every word, as the unit has it.
template <typename Char, typename Visit>
void each_word(const Char* text, int64_t length, const Settings& settings, Visit&& visit) {
    const CharacterTable& characters = settings.characters;
    for (int64_t place = 0; place < length;) {
        const unsigned flags = characters[text[place]];
        if (flags & BLANK) {
            ++place;
            continue;
        }
        int64_t end = place + 1;
        if (settings.unit == Unit::BLANKS) {
            while (end < length && !(characters[text[end]] & BLANK)) ++end;
        } else if (settings.unit == Unit::WORDS && (flags & WORD)) {
            for (;; ++end) {  // letters, and an apostrophe between letters
                if (end < length && (characters[text[end]] & WORD)) continue;
                const bool apostrophe = end + 1 < length && (text[end] == '\'' || uint32_t(text[end]) == 0x2019);
                if (!(apostrophe && (characters[text[end + 1]] & WORD))) break;
            }
        }
        visit(place, end);
        place = end;
    }
}

template <typename Char>
void word_statistics(const Char* text, int64_t length, const Settings& settings, Workspace& work, int64_t hashes,
                     int64_t ellipses, double* row) {
    int64_t words = 0, text_words = 0, text_word_characters = 0, alphabetic = 0;
    const auto most = size_t(std::min<int64_t>(MOST_INK, length));
    if (work.ink.size() < most + 1) work.ink.resize(most + 1);
    work.ink[0] = 0;
    size_t size = 0;
    work.starts.assign(1, 0);
    work.hashes.clear();
    each_word(text, length, settings, [&](int64_t first, int64_t last) {
        ++words;
        unsigned any = 0, all = ~0u;
        const bool counted = size + size_t(last - first) <= most;
        uint64_t* const inks = work.ink.data() + size;
        uint64_t ink = inks[0];
        for (int64_t place = first; place < last; ++place) {
            const uint32_t code = text[place];
            const unsigned flags = settings.characters[code];
            any |= flags;
            all &= flags;
            if (counted) inks[place - first + 1] = ink = ink * BASE + code_value(code);
        }
        if (!(all & PUNCTUATION)) {
            ++text_words;
            text_word_characters += last - first;
        }
        alphabetic += (any & ALPHABETIC) != 0;
        if (!counted) return;
        work.hashes.push_back(ink - inks[0] * power(work, uint64_t(last - first)));  // hash_word of it
        work.starts.push_back(uint32_t(size += size_t(last - first)));
    });
    const double per_word = words ? 1.0 / double(words) : 0.0;
    row[COLUMN_words] = double(words);
    row[COLUMN_text_words] = double(text_words);
    row[COLUMN_mean_word_length] = text_words ? double(text_word_characters) / double(text_words) : 0.0;
    const auto ratio = [&](int64_t count) { return words ? double(count) / double(words) : 0.0; };
    row[COLUMN_hashes_per_word] = ratio(hashes);
    row[COLUMN_ellipses_per_word] = ratio(ellipses);
    row[COLUMN_alphabetic_words] = ratio(alphabetic);
    row[COLUMN_newlines_per_word] = per_word > 0 ? row[COLUMN_newlines_per_word] / double(words) : 0.0;
    top_grams(work, settings, length, row);
    duplicate_grams(work, settings.unit, length, row);
}

// A Python string as it lies in memory. Strings do not change, so it is read while other threads run.
struct Text {
    const void* data;
    int64_t length;
    int kind;
};

// Fills a row, with the statistics of the edited text where the lines are edited; that text goes into `edited` where it
// differs.
template <typename Char>
void measure(const Text& given, const Settings& settings, Workspace& work, double* row, std::string& edited, bool& changed) {
    const auto* text = static_cast<const Char*>(given.data);
    int64_t length = given.length;
    const uint16_t* characters = settings.characters.data();
    std::vector<Char> kept;
    if (settings.line_rules.on) {
        kept.reserve(size_t(length));
        edit_lines(Lines<Char>{text, length, characters}, settings, kept, row);
        const size_t size = kept.size() * sizeof(Char);
        changed = int64_t(kept.size()) != length || (size && std::memcmp(kept.data(), text, size) != 0);
        if (changed) {
            edited.assign(reinterpret_cast<const char*>(kept.data()), size);
            text = kept.data();
            length = int64_t(kept.size());
        }
    }
    const Lines<Char> lines = {text, length, characters};
    int64_t hashes = 0, ellipses = 0;
    character_statistics(text, length, settings, row, hashes, ellipses);
    phrase_statistics(text, length, settings, row);
    row[COLUMN_phones] = row[COLUMN_digits] > 0 ? double(count_phones(text, length)) : 0.0;
    line_statistics(lines, settings, work.lines, row);
    word_statistics(text, length, settings, work, hashes, ellipses, row);
}

std::vector<Text> read(const py::list& texts) {
    std::vector<Text> read;
    read.reserve(texts.size());
    for (size_t place = 0; place < texts.size(); ++place) {
        PyObject* text = PyList_GET_ITEM(texts.ptr(), Py_ssize_t(place));
        if (!PyUnicode_Check(text)) throw py::type_error("texts[" + std::to_string(place) + "] is no str");
        read.push_back({PyUnicode_DATA(text), int64_t(PyUnicode_GET_LENGTH(text)), int(PyUnicode_KIND(text))});
    }
    return read;
}

std::u32string codes(const py::handle& text) {
    if (!PyUnicode_Check(text.ptr())) throw py::type_error("a list of words holds something that is no str");
    std::u32string codes;
    for (Py_ssize_t place = 0; place < PyUnicode_GET_LENGTH(text.ptr()); ++place)
        codes.push_back(char32_t(PyUnicode_READ_CHAR(text.ptr(), place)));
    return codes;
}

std::vector<Phrase> phrases(const py::dict& groups, const std::vector<std::pair<const char*, Group>>& known) {
    std::vector<Phrase> result;
    for (const auto& [name, group] : known) {
        if (!groups.contains(name)) continue;
        for (const py::handle phrase : groups[name]) {
            const std::u32string text = codes(phrase);
            const bool latin = !text.empty() && std::all_of(text.begin(), text.end(), [](char32_t c) { return c < 0x250; });
            result.push_back({text, group, latin && group <= ADVERTISING});
        }
    }
    return result;
}

class Features {
public:
    Features(const std::string& unit, const py::str& punctuation, const py::str& terminal, const py::str& traditional,
             const py::list& stop_words, const py::dict& groups, int64_t short_line, const py::object& line_rules) {
        if (unit == "words") settings_.unit = Unit::WORDS;
        else if (unit == "characters") settings_.unit = Unit::CHARACTERS;
        else if (unit == "blanks") settings_.unit = Unit::BLANKS;
        else throw py::value_error("unit is words, characters or blanks, not " + unit);
        settings_.characters = make_characters(codes(punctuation), codes(terminal), codes(traditional));
        for (uint32_t code = 0; code < 0x10000; ++code)
            settings_.kinds.push_back(kinds_of(code, settings_.characters[code]));
        settings_.short_line = short_line;
        for (const py::handle word : stop_words) {
            const std::u32string text = codes(word);
            settings_.add_stop(hash_word(text.data(), int64_t(text.size())));
        }
        settings_.phrases = Phrases(phrases(groups, {{"flagged", FLAGGED}, {"boilerplate", BOILERPLATE},
            {"advertising", ADVERTISING}, {"links", LINK}, {"broken", BROKEN_PHRASE}, {"solicitation", SOLICITATION}}));
        settings_.line_phrases = Phrases(
            phrases(groups, {{"lorem_ipsum", LOREM_IPSUM}, {"javascript", JAVASCRIPT}, {"policy", POLICY}}));
        if (line_rules.is_none()) return;
        const py::dict rules = line_rules;
        LineRules& own = settings_.line_rules;
        own.on = true;
        own.need_terminal = rules["need_terminal"].cast<bool>();
        own.remove_citations = rules["remove_citations"].cast<bool>();
        own.drop_javascript = rules["drop_javascript"].cast<bool>();
        own.drop_policy = rules["drop_policy"].cast<bool>();
        own.max_word_length = rules["max_word_length"].is_none() ? -1 : rules["max_word_length"].cast<int64_t>();
        own.min_words = rules["min_words"].is_none() ? -1 : rules["min_words"].cast<int64_t>();
    }

    py::tuple operator()(const py::list& given) const {
        const auto held = py::reinterpret_steal<py::list>(PyList_GetSlice(given.ptr(), 0, Py_ssize_t(given.size())));  // the strings stay while they are read, whatever becomes of `given`
        const std::vector<Text> texts = read(held);
        py::array_t<double> table({py::ssize_t(texts.size()), py::ssize_t(COLUMNS)});
        double* rows = table.mutable_data();
        std::fill_n(rows, texts.size() * COLUMNS, 0.0);
        std::vector<std::pair<size_t, std::string>> edits;
        {
            py::gil_scoped_release released;
            Workspace work;
            for (size_t place = 0; place < texts.size(); ++place) {
                std::string edited;
                bool changed = false;
                double* row = rows + place * COLUMNS;
                const Text& text = texts[place];
                if (text.kind == 1) measure<uint8_t>(text, settings_, work, row, edited, changed);
                else if (text.kind == 2) measure<uint16_t>(text, settings_, work, row, edited, changed);
                else measure<uint32_t>(text, settings_, work, row, edited, changed);
                if (changed) edits.emplace_back(place, std::move(edited));
            }
        }
        py::list news(texts.size());
        for (size_t place = 0; place < texts.size(); ++place) news[place] = py::none();
        for (const auto& [place, edited] : edits) {
            const int kind = texts[place].kind;
            PyObject* text = PyUnicode_FromKindAndData(kind, edited.data(), Py_ssize_t(edited.size() / size_t(kind)));
            if (!text) throw py::error_already_set();
            news[place] = py::reinterpret_steal<py::object>(text);
        }
        return py::make_tuple(table, news);
    }

private:
    Settings settings_;
};

template <typename Char>
void count_letters(const Text& text, int64_t* counts) {
    const auto* codes = static_cast<const Char*>(text.data);
    for (int64_t place = 0; place < text.length; ++place) {
        const uint32_t code = codes[place];
        if (code < 0x80)
            counts[1] += (code | 0x20) >= 'a' && (code | 0x20) <= 'z';
        else
            counts[characters_of_python()[code] & HAN ? 0 : 2] += (characters_of_python()[code] & ALPHABETIC) != 0;
    }
}

py::array_t<int64_t> letter_counts(const py::list& given) {
    const auto held = py::reinterpret_steal<py::list>(PyList_GetSlice(given.ptr(), 0, Py_ssize_t(given.size())));
    const std::vector<Text> texts = read(held);
    py::array_t<int64_t> table({py::ssize_t(texts.size()), py::ssize_t(3)});
    int64_t* counts = table.mutable_data();
    std::fill_n(counts, texts.size() * 3, int64_t(0));
    for (size_t place = 0; place < texts.size(); ++place) {
        if (texts[place].kind == 1) count_letters<uint8_t>(texts[place], counts + 3 * place);
        else if (texts[place].kind == 2) count_letters<uint16_t>(texts[place], counts + 3 * place);
        else count_letters<uint32_t>(texts[place], counts + 3 * place);
    }
    return table;
}

}  // namespace

void bind_features(py::module_& module) {
    std::vector<std::string> names = {
#define AQUILA_ENTRY(name) #name,
        AQUILA_TEXT_COLUMNS(AQUILA_ENTRY)
#undef AQUILA_ENTRY
    };
    module.attr("FEATURES") = py::tuple(py::cast(names));
    module.def("letter_counts", &letter_counts, py::arg("texts"));
    py::class_<Features>(module, "Features")
        .def(py::init<const std::string&, const py::str&, const py::str&, const py::str&, const py::list&, const py::dict&,
                      int64_t, const py::object&>(),
             py::arg("unit"), py::kw_only(), py::arg("punctuation"), py::arg("terminal"), py::arg("traditional"),
             py::arg("stop_words"), py::arg("phrases"), py::arg("short_line"), py::arg("line_rules"))
        .def("__call__", &Features::operator(), py::arg("texts"));
}

}  // namespace aquila::text
