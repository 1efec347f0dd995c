#include "characters.h"

#include <Python.h>

namespace aquila::text {
namespace {

bool is_han(uint32_t code) {
    return (code >= 0x3400 && code <= 0x4DBF) || (code >= 0x4E00 && code <= 0x9FFF) ||
           (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x20000 && code <= 0x323AF);
}

bool is_line_break(uint32_t code) {
    return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
           code == 0x2029;
}

bool is_broken(uint32_t code) {
    const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
    const bool private_use = (code >= 0xE000 && code <= 0xF8FF) || code >= 0xF0000;
    return (control && !Py_UNICODE_ISSPACE(code)) || private_use || code == 0xFFFD || (code >= 0xD800 && code <= 0xDFFF);
}

CharacterTable make_base() {
    CharacterTable table(CODE_POINTS, 0);
    for (uint32_t code = 0; code < CODE_POINTS; ++code) {
        const bool alphanumeric = Py_UNICODE_ISALNUM(code);
        const bool han = is_han(code);
        unsigned flags = 0;
        if (Py_UNICODE_ISALPHA(code)) flags |= ALPHABETIC;
        if (alphanumeric) flags |= ALPHANUMERIC;
        if (Py_UNICODE_ISSPACE(code)) flags |= BLANK;
        if (is_line_break(code)) flags |= LINE_BREAK;
        if (Py_UNICODE_ISDIGIT(code)) flags |= DIGIT;
        if (han) flags |= HAN;
        if (lower(code) != code) flags |= CASED;
        if ((alphanumeric || code == '_') && !han) flags |= WORD;
        if (is_broken(code)) flags |= BROKEN;
        if (Py_UNICODE_ISDECIMAL(code)) flags |= DECIMAL;
        table[code] = uint16_t(flags);
    }
    for (const char32_t code : std::u32string(U"。！？｡")) table[code] |= SENTENCE_STRONG;
    for (const char32_t code : std::u32string(U".!?…")) table[code] |= SENTENCE_WEAK;
    for (const char32_t code : std::u32string(U"\"'”’)]）》」』")) table[code] |= CLOSING;
    return table;
}

}  // namespace

uint32_t lower(uint32_t code) { return code == 0x130 ? code : uint32_t(Py_UNICODE_TOLOWER(code)); }

const CharacterTable& characters_of_python() {
    static const CharacterTable base = make_base();
    return base;
}

CharacterTable make_characters(
    const std::u32string& punctuation, const std::u32string& terminal, const std::u32string& traditional) {
    CharacterTable table = characters_of_python();
    for (const char32_t code : punctuation) table[code] |= PUNCTUATION;
    for (const char32_t code : terminal) table[code] |= TERMINAL;
    for (const char32_t code : traditional) table[code] |= TRADITIONAL;
    return table;
}

}  // namespace aquila::text
