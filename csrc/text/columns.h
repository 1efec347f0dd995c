// The columns of the matrix that _text.Features returns; their meaning is told in data_tools/_text.pyi.
#pragma once

#define AQUILA_TEXT_COLUMNS(X)                                                                                      \
    X(characters) X(ink) X(words) X(text_words) X(mean_word_length) X(hashes_per_word) X(ellipses_per_word)         \
    X(bullet_lines) X(ellipsis_lines) X(alphabetic_words) X(stop_words) X(stop_word_share)                          \
    X(duplicate_paragraphs) X(duplicate_paragraph_characters) X(duplicate_lines) X(duplicate_line_characters)       \
    X(top_2_gram) X(top_3_gram) X(top_4_gram) X(duplicate_5_grams) X(duplicate_6_grams) X(duplicate_7_grams)        \
    X(duplicate_8_grams) X(duplicate_9_grams) X(duplicate_10_grams) X(repeated_10_grams) X(repeated_10_characters)  \
    X(terminal_lines) X(short_lines) X(duplicate_ink_lines) X(newlines_per_word) X(mean_line_length)                \
    X(max_line_length) X(special) X(digits) X(alphanumeric) X(han) X(traditional) X(broken) X(unique_words)         \
    X(unigram_entropy) X(flagged) X(boilerplate) X(advertising) X(links) X(solicitations) X(phones) X(sentences)    \
    X(lorem_ipsum) X(curly_bracket) X(lines) X(dropped_long_word) X(dropped_no_terminal) X(dropped_few_words)       \
    X(dropped_javascript) X(dropped_policy) X(citations)

namespace aquila::text {

enum Column {
#define AQUILA_ENTRY(name) COLUMN_##name,
    AQUILA_TEXT_COLUMNS(AQUILA_ENTRY)
#undef AQUILA_ENTRY
        COLUMNS
};

}  // namespace aquila::text
