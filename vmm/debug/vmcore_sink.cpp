#include "vmm/debug/vmcore_sink.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "vmm/base/error.h"
#include "vmm/base/zeroes.h"

namespace martlet {
namespace {

[[noreturn]] void fail_writing(int error, const std::string& path) {
  fail_errno(error, fmt::format("cannot write {}{}", path,
                                error == ENOSPC || error == EDQUOT || error == EFBIG
                                    ? " (up to all of the guest's memory; free space, or choose another place)"
                                    : ""));
}

class SparseSink final : public Sink {
 public:
  explicit SparseSink(NewFile& file) : file_{file} {}
  void put(std::uint64_t offset, std::span<const std::byte> bytes) override { file_.write_at(offset, bytes); }
  void finish(std::uint64_t size) override { file_.set_size(size); }

 private:
  NewFile& file_;
};

class ZstdSink final : public Sink {
 public:
  ZstdSink(NewFile& file, std::uint64_t size) : file_{file}, stream_{ZSTD_createCCtx()}, out_(ZSTD_CStreamOutSize()) {
    if (!stream_) {
      throw HostError{"not enough memory to compress a vmcore"};
    }
    must(ZSTD_CCtx_setParameter(stream_.get(), ZSTD_c_compressionLevel, 1));
    must(ZSTD_CCtx_setParameter(stream_.get(), ZSTD_c_checksumFlag, 1));
    must(ZSTD_CCtx_setPledgedSrcSize(stream_.get(), size));
  }

  void put(std::uint64_t offset, std::span<const std::byte> bytes) override {
    fill_to(offset);
    feed(bytes, ZSTD_e_continue);
  }
  void finish(std::uint64_t size) override {
    fill_to(size);
    feed({}, ZSTD_e_end);
  }

 private:
  static std::size_t must(std::size_t result) {
    if (ZSTD_isError(result) != 0) {
      throw HostError{fmt::format("cannot compress a vmcore: {}", ZSTD_getErrorName(result))};
    }
    return result;
  }
  void fill_to(std::uint64_t offset) {
    while (at_ < offset) {
      feed(zeroes().first(std::min<std::uint64_t>(zeroes().size(), offset - at_)), ZSTD_e_continue);
    }
  }
  void feed(std::span<const std::byte> bytes, ZSTD_EndDirective directive) {
    at_ += bytes.size();
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    std::size_t left = 0;
    do {
      ZSTD_outBuffer out{out_.data(), out_.size(), 0};
      left = must(ZSTD_compressStream2(stream_.get(), &out, &in, directive));
      file_.write_at(written_, std::span{out_}.first(out.pos));
      written_ += out.pos;
    } while (in.pos < in.size || (directive == ZSTD_e_end && left != 0));
  }

  struct Free {
    void operator()(ZSTD_CCtx* stream) const { ZSTD_freeCCtx(stream); }
  };
  NewFile& file_;
  std::unique_ptr<ZSTD_CCtx, Free> stream_;
  std::vector<std::byte> out_;
  std::uint64_t at_ = 0;
  std::uint64_t written_ = 0;
};

}  // namespace

NewFile::NewFile(std::string path) : path_{std::move(path)}, temporary_{path_ + ".XXXXXX"} {
  fd_ = Fd{::mkostemp(temporary_.data(), O_CLOEXEC)};  // mode 0600
  if (!fd_) {
    fail_writing(errno, path_);
  }
}

NewFile::~NewFile() {
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

void NewFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto done = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno != EINTR) {
      fail_writing(errno, path_);
    }
    const auto written = static_cast<std::size_t>(std::max<ssize_t>(done, 0));
    bytes = bytes.subspan(written);
    offset += written;
  }
}

void NewFile::set_size(std::uint64_t size) {
  if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
    fail_writing(errno, path_);
  }
}

void NewFile::finish() {
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail_writing(errno, path_);
  }
  temporary_.clear();
}

std::unique_ptr<Sink> make_sparse_sink(NewFile& file) { return std::make_unique<SparseSink>(file); }

std::unique_ptr<Sink> make_zstd_sink(NewFile& file, std::uint64_t size) {
  return std::make_unique<ZstdSink>(file, size);
}

}  // namespace martlet
