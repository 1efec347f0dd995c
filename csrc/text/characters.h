// What the kernel knows of a code point: one 16-bit word of flags for each, from CPython's own tables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace aquila::text {

constexpr uint32_t CODE_POINTS = 0x110000;

enum Flag : uint16_t {
    ALPHABETIC = 1 << 0,    // str.isalpha
    ALPHANUMERIC = 1 << 1,  // str.isalnum
    BLANK = 1 << 2,         // str.isspace
    LINE_BREAK = 1 << 3,    // str.splitlines
    DIGIT = 1 << 4,         // str.isdigit
    HAN = 1 << 5,
    CASED = 1 << 6,       // has a lower case of its own
    WORD = 1 << 7,        // isalnum or "_", and not Han
    BROKEN = 1 << 8,      // U+FFFD, surrogates, private use, control characters that are no blanks
    PUNCTUATION = 1 << 9,   // this and the next two as the caller lists them
    TERMINAL = 1 << 10,
    TRADITIONAL = 1 << 11,
    SENTENCE_STRONG = 1 << 12,  // ends a sentence wherever it stands
    SENTENCE_WEAK = 1 << 13,    // ends one before a blank
    CLOSING = 1 << 14,          // quotes and brackets after it
    DECIMAL = 1 << 15,          // str.isdecimal, as \d of re
};

using CharacterTable = std::vector<uint16_t>;  // CODE_POINTS entries

// The flags that do not depend on a list. The first call of a process needs the GIL.
const CharacterTable& characters_of_python();

// Characters of the three lists get the flags of those names.
CharacterTable make_characters(
    const std::u32string& punctuation, const std::u32string& terminal, const std::u32string& traditional);

// The simple lower case of one code point; U+0130, whose lower case is two code points, stays as it is.
uint32_t lower(uint32_t code);

}  // namespace aquila::text
