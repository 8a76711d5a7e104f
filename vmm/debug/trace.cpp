#include "vmm/debug/trace.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet {
namespace {

std::string quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

TraceFile::TraceFile(std::string path) : path_{std::move(path)} {
  Fd fd = open_file(path_, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  file_.reset(::fdopen(fd.get(), "w"));
  if (!file_) {
    fail_errno(errno, "cannot write " + path_);
  }
  static_cast<void>(fd.release());  // the stream closes it
  std::fputs("[\n", file_.get());
}

void TraceFile::name_track(int track, std::string_view name) {
  event(fmt::format(R"({{"name":"thread_name","ph":"M","pid":1,"tid":{},"args":{{"name":{}}}}})", track, quoted(name)));
}

void TraceFile::span(int track, std::string_view name, std::uint64_t begin, std::uint64_t duration,
                     std::string_view details) {
  event(fmt::format(R"({{"name":{},"ph":"X","pid":1,"tid":{},"ts":{:.3f},"dur":{:.3f},"args":{{{}}}}})", quoted(name),
                    track, microseconds(begin), static_cast<double>(duration) / 1000, details));
}

void TraceFile::milestone(std::string_view name, std::uint64_t when) {
  event(fmt::format(R"({{"name":{},"ph":"i","s":"g","pid":1,"tid":0,"ts":{:.3f}}})", quoted(name), microseconds(when)));
}

void TraceFile::finish() {
  std::fputs("\n]\n", file_.get());
  if (std::ferror(file_.get()) != 0 || std::fflush(file_.get()) != 0) {
    fail_errno(errno, "cannot write " + path_);
  }
  file_.reset();
}

void TraceFile::event(std::string_view text) {
  fmt::print(file_.get(), "{}{}", std::exchange(first_, false) ? "" : ",\n", text);
}

double TraceFile::microseconds(std::uint64_t when) const noexcept {
  return (static_cast<double>(when) - static_cast<double>(origin_)) / 1000;
}

}  // namespace martlet
