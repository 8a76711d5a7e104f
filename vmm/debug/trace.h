#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

namespace martlet {

/// Writes a trace that Perfetto and chrome://tracing open: the JSON array of Google's "Trace Event Format". Times
/// are ns of CLOCK_MONOTONIC; the file counts from `origin`, in µs.
class TraceFile {
 public:
  /// HostError when `path` cannot be written.
  explicit TraceFile(std::string path);

  /// Where 0 is. Before the first event.
  void set_origin(std::uint64_t nanoseconds) noexcept { origin_ = nanoseconds; }

  /// A row of the display, called `name`.
  void name_track(int track, std::string_view name);
  /// Something that took time. `details`: the inside of a JSON object, or nothing.
  void span(int track, std::string_view name, std::uint64_t begin, std::uint64_t duration,
            std::string_view details = {});
  /// Something that happened, drawn across all tracks.
  void milestone(std::string_view name, std::uint64_t when);

  /// Ends the file. HostError if any of it could not be written.
  void finish();

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };

  void event(std::string_view text);
  [[nodiscard]] double microseconds(std::uint64_t when) const noexcept;

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::uint64_t origin_ = 0;
  bool first_ = true;
};

}  // namespace martlet
