#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "vmm/base/fd.h"

namespace martlet {

/// A file that gets its name when it is whole, and otherwise goes away. Only its owner may read it.
class NewFile {
 public:
  /// Throws HostError, as do all the others.
  explicit NewFile(std::string path);
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile();

  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  void set_size(std::uint64_t size);
  /// Gives it its name, in the place of a file that has it.
  void finish();

 private:
  std::string path_;
  std::string temporary_;
  Fd fd_;
};

/// Takes bytes from the beginning to the end; what is not put is zeros.
class Sink {
 public:
  Sink() = default;
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;
  virtual ~Sink() = default;
  /// `offset`: not before the end of what was put last.
  virtual void put(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  /// `size`: of all.
  virtual void finish(std::uint64_t size) = 0;
};

/// Leaves holes in the file.
[[nodiscard]] std::unique_ptr<Sink> make_sparse_sink(NewFile& file);
/// One zstd frame of `size` bytes.
[[nodiscard]] std::unique_ptr<Sink> make_zstd_sink(NewFile& file, std::uint64_t size);

}  // namespace martlet
