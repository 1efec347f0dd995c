// Counts of 64-bit keys, in the order of their first appearance.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace aquila::text {

// Spreads every bit of a key over the whole word (the finaliser of splitmix64).
inline uint64_t mix(uint64_t key) {
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9ull;
    key = (key ^ (key >> 27)) * 0x94D049BB133111EBull;
    return key ^ (key >> 31);
}

class Counter {
public:
    // Empty it. `expected`: the number of keys to come; the table grows where there are more.
    void clear(size_t expected) {
        bits_ = 6;
        while ((size_t(1) << bits_) < 2 * std::min(expected, size_t(1) << 20)) ++bits_;
        slots_.assign(size_t(1) << bits_, 0);
        make_room();
        size_ = 0;
    }

    // Counts `key` once and returns its entry: 0, 1, 2 … in the order of first appearance.
    uint32_t add(uint64_t key) {
        const uint64_t hash = spread(key);
        const size_t mask = slots_.size() - 1;
        size_t slot = hash >> (64 - bits_);
        while (const uint64_t found = slots_[slot]) {
            const uint32_t entry = uint32_t(found) - 1;
            if (uint32_t(found >> 32) == uint32_t(hash) && keys_[entry] == key) {
                ++counts_[entry];
                return entry;
            }
            slot = (slot + 1) & mask;
        }
        keys_[size_] = key;
        counts_[size_] = 1;
        slots_[slot] = (hash << 32) | ++size_;
        if (size_ * 2 > slots_.size()) grow();
        return uint32_t(size_ - 1);
    }

    size_t size() const { return size_; }
    uint64_t key(uint32_t entry) const { return keys_[entry]; }
    uint32_t count(uint32_t entry) const { return counts_[entry]; }

private:
    // The high bits choose the slot, the low ones tell keys apart before they are compared.
    static uint64_t spread(uint64_t key) {
        key *= 0xF1357AEA2E62A9C5ull;
        return key ^ (key >> 32);
    }

    void make_room() {
        if (keys_.size() > slots_.size() / 2) return;
        keys_.resize(slots_.size() / 2 + 1);
        counts_.resize(keys_.size());
    }

    void grow() {
        ++bits_;
        slots_.assign(size_t(1) << bits_, 0);
        const size_t mask = slots_.size() - 1;
        make_room();
        for (size_t entry = 0; entry < size_; ++entry) {
            const uint64_t hash = spread(keys_[entry]);
            size_t slot = hash >> (64 - bits_);
            while (slots_[slot]) slot = (slot + 1) & mask;
            slots_[slot] = (hash << 32) | (entry + 1);
        }
    }

    int bits_ = 6;
    size_t size_ = 0;
    std::vector<uint64_t> slots_;  // low half: entry + 1, or 0 where free; high half: low half of the key's hash
    std::vector<uint64_t> keys_;
    std::vector<uint32_t> counts_;
};

}  // namespace aquila::text
