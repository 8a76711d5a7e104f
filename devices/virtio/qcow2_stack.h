#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "devices/virtio/buffer_cursor.h"
#include "devices/virtio/image_file.h"
#include "devices/virtio/qcow2_image.h"

namespace martlet::virtio {

/// What a qcow2 disk is read from: an image and, if there is one, the backing file below it. Keeps those that
/// must wait for one another, too.
class Qcow2Stack {
 public:
  /// At most one of the two that may be below, both open for reading.
  Qcow2Stack(std::unique_ptr<Qcow2Image> top, std::unique_ptr<Qcow2Image> below, std::unique_ptr<ImageFile> raw_below);

  [[nodiscard]] Qcow2Image& top() noexcept { return *top_; }
  [[nodiscard]] bool has_backing() const noexcept { return below_ || raw_below_; }

  enum Layer : std::size_t { kTop, kBelow, kLayers };
  /// A piece of the disk, and where its bytes are.
  struct Piece {
    enum class Source { Zeroes, File, Compressed } source = Source::Zeroes;
    std::uint64_t length = 0;
    Layer layer = kTop;
    std::uint64_t offset = 0;  ///< File: in it. Compressed: in the unpacked cluster
    std::uint64_t entry = 0;   ///< Compressed
  };
  /// The piece at `offset` of the disk, `limit` bytes at most. An errno value, or 0.
  [[nodiscard]] int find(std::uint64_t offset, std::uint64_t limit, Piece& piece) noexcept;
  /// Nothing but zeroes, as far as can be told without reading data.
  [[nodiscard]] bool is_zero(std::uint64_t offset, std::uint64_t length) noexcept;

  [[nodiscard]] Qcow2Image& image(Layer layer) noexcept { return layer == kTop ? *top_ : *below_; }
  [[nodiscard]] Disk& disk(Layer layer) noexcept;

  /// A request to the disk of one layer.
  class Transfer : public DiskRequest {
   public:
    void begin(Qcow2Stack& stack, Layer layer, const Work& transfer) noexcept;

   protected:
    ~Transfer() = default;

   private:
    virtual void transferred(int error) noexcept = 0;
    void done(int error) noexcept final;
    Qcow2Stack* stack_ = nullptr;
    Layer layer_ = kTop;
  };
  void commit() noexcept;
  void wait() noexcept;
  void on_settled(const std::function<void()>& settled);

  /// Who cannot go on now: asked to try again whenever something ended that it may have waited for.
  class Waiter {
   public:
    virtual void retry() noexcept = 0;

   protected:
    ~Waiter() = default;
  };
  void park(Waiter& waiter) { parked_.push_back(&waiter); }
  void wake() noexcept;

  /// Memory that requests hold for a while. One always gets some.
  class Budget {
   public:
    static constexpr std::uint64_t kBytes = 16U << 20U;
    [[nodiscard]] bool take(std::uint64_t bytes) noexcept {
      if (taken_ != 0 && taken_ + bytes > kBytes) {
        return false;
      }
      taken_ += bytes;
      return true;
    }
    void give(std::uint64_t bytes) noexcept { taken_ -= bytes; }

   private:
    std::uint64_t taken_ = 0;
  };
  Budget copies{};      ///< what is written along with a request's own bytes
  Budget compressed{};  ///< who holds of these waits for no other budget

 private:
  [[nodiscard]] int find_in(Layer layer, std::uint64_t offset, std::uint64_t limit, Piece& piece, bool& unallocated);

  std::unique_ptr<Qcow2Image> top_;
  std::unique_ptr<Qcow2Image> below_;
  std::unique_ptr<ImageFile> raw_below_;
  std::array<std::size_t, kLayers> in_flight_{};
  std::vector<Waiter*> parked_;
  bool waking_ = false;
  bool again_ = false;
};

/// Reads a range of the disk, piece by piece.
class Qcow2Reader : private Qcow2Stack::Transfer, private Qcow2Stack::Waiter {
 public:
  explicit Qcow2Reader(Qcow2Stack& stack) : stack_{stack} {}

  /// `buffers` and what they point at live until read_done(), which may come at once.
  void read(std::uint64_t offset, std::uint64_t length, std::span<const iovec> buffers) noexcept;

 protected:
  ~Qcow2Reader() = default;

 private:
  virtual void read_done(int error) noexcept = 0;
  [[nodiscard]] virtual bool read_cancelled() const noexcept = 0;

  void next() noexcept;
  void retry() noexcept final { next(); }
  void transferred(int error) noexcept final;
  [[nodiscard]] int take_unpacked() noexcept;

  Qcow2Stack& stack_;
  BufferCursor to_;
  std::uint64_t at_ = 0;
  std::uint64_t left_ = 0;
  Qcow2Stack::Piece piece_{};
  std::vector<iovec> buffers_;
  std::vector<std::byte> packed_;
};

}  // namespace martlet::virtio
