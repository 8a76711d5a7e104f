#pragma once
// Options of the command line that are lists themselves: "--disk path=disk.img,readonly=on,queues=2".

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace martlet {

/// "key=value,key=value,…". A comma within a value is written twice. Each key is taken by name; what
/// nobody took is refused by finish(). All of it throws HostError that names the option.
class Options {
 public:
  /// `what` is the option as users know it, for example "--disk".
  Options(std::string_view text, std::string_view what);

  /// The value of `key`, nothing when it is not there.
  [[nodiscard]] std::optional<std::string> take(std::string_view key);
  /// The values of all items with this key, in order: for what may be given several times.
  [[nodiscard]] std::vector<std::string> take_all(std::string_view key);
  /// The same as take(), but the first item of the list may leave "key=" out. To be called before other take…().
  [[nodiscard]] std::optional<std::string> take_first(std::string_view key);
  /// "on" or "off"; the key alone is "on".
  [[nodiscard]] std::optional<bool> take_flag(std::string_view key);
  /// Bytes, with or without a unit.
  [[nodiscard]] std::optional<std::uint64_t> take_size(std::string_view key);
  struct Limits {
    std::uint64_t min = 0;
    std::uint64_t max = std::numeric_limits<std::uint64_t>::max();
  };
  [[nodiscard]] std::optional<std::uint64_t> take_number(std::string_view key, Limits limits);
  [[nodiscard]] std::optional<std::uint64_t> take_number(std::string_view key) { return take_number(key, Limits{}); }
  /// One of few words: take_choice<Cache>("cache", {{"direct", Cache::Direct}, …}).
  template <class T>
  [[nodiscard]] std::optional<T> take_choice(std::string_view key,
                                             std::initializer_list<std::pair<std::string_view, T>> choices) {
    const auto word = take(key);
    if (!word) {
      return std::nullopt;
    }
    std::vector<std::string_view> words;
    for (const auto& [name, value] : choices) {
      if (name == *word) {
        return value;
      }
      words.push_back(name);
    }
    refuse_choice(key, *word, words);
  }

  /// Refuses what was not taken, and suggests the nearest key that somebody asked for.
  void finish() const;

 private:
  struct Item {
    std::string key{};  ///< the whole item when it is bare
    std::optional<std::string> value{};
    bool taken = false;
  };

  [[nodiscard]] Item* find(std::string_view key);
  [[nodiscard]] std::string name_of(std::string_view key) const;
  [[noreturn]] void refuse_choice(std::string_view key, std::string_view word,
                                  std::span<const std::string_view> choices) const;

  std::string what_;
  std::vector<Item> items_;
  std::vector<std::string> known_;
};

/// ", did you mean X?" with the word of `known` that is most like `word`; empty when none is like it.
[[nodiscard]] std::string did_you_mean(std::string_view word, std::span<const std::string> known);

}  // namespace martlet
