#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "devices/virtio/disk_qcow2.h"

namespace martlet::virtio {

/// One request but a flush, step by step from its start to its end. A step is a run of clusters that are alike.
class Qcow2Disk::Task final : private Qcow2Stack::Waiter {
 public:
  explicit Task(Qcow2Disk& disk) : disk_{disk} {}
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

  void begin(DiskRequest& request) noexcept;

 private:
  using Kind = DiskRequest::Kind;
  enum class Step { On, Waits };

  class Reader final : public Qcow2Reader {
   public:
    explicit Reader(Task& task) : Qcow2Reader{*task.disk_.stack_}, task_{task} {}

   private:
    void read_done(int error) noexcept override { task_.has_read(error); }
    [[nodiscard]] bool read_cancelled() const noexcept override { return task_.request_->cancelled; }
    Task& task_;
  };
  class Writer final : public Qcow2Stack::Transfer {
   public:
    explicit Writer(Task& task) : task_{task} {}

   private:
    void transferred(int error) noexcept override { task_.has_written(error); }
    Task& task_;
  };

  /// New places for a run of clusters, and what is written there besides the request's own bytes.
  struct Move {
    ClusterRun clusters{};     // of the disk
    std::uint64_t host = 0;    // in the file; 0: nothing is moved
    bool allocated = false;    // for this; else the clusters had that room before
    std::uint64_t head = 0;    // bytes before the request's
    std::uint64_t tail = 0;    // and after them
    std::uint64_t copied = 0;  // bytes of the budget that are held
    enum class Fill { None, Zeroes, Head, Tail, Copied } fill = Fill::None;
  };

  void retry() noexcept override { run(); }
  void run() noexcept;
  [[nodiscard]] Step step() noexcept;
  [[nodiscard]] Step write(std::uint64_t most) noexcept;
  [[nodiscard]] Step move(std::uint64_t most, std::uint64_t clusters, const Qcow2Map::Extent& extent) noexcept;
  [[nodiscard]] Step zero() noexcept;
  [[nodiscard]] Step zero_clusters(std::uint64_t cluster, std::uint64_t clusters) noexcept;

  [[nodiscard]] std::uint64_t movable(std::uint64_t cluster, std::uint64_t limit,
                                      const Qcow2Map::Extent& first) noexcept;
  void fill() noexcept;
  void has_read(int error) noexcept;
  void write_moved() noexcept;
  void has_written(int error) noexcept;
  void end_move(int error) noexcept;

  [[nodiscard]] Step park() noexcept;
  [[nodiscard]] Step park_for_room() noexcept;
  [[nodiscard]] Step fail(int error) noexcept;
  [[nodiscard]] Step skip(std::uint64_t bytes) noexcept;
  void take_data(std::uint64_t bytes);
  void add_zeroes(std::uint64_t bytes);
  void finish() noexcept;

  [[nodiscard]] std::uint64_t cluster_size() const noexcept { return disk_.stack_->top().header().cluster(); }
  [[nodiscard]] Qcow2Map& map() noexcept { return disk_.stack_->top().map(); }

  Qcow2Disk& disk_;
  DiskRequest* request_ = nullptr;
  std::size_t generation_ = 0;
  std::uint64_t at_ = 0;    // of the disk: what is before is done
  std::uint64_t left_ = 0;  // bytes
  int error_ = 0;
  std::uint64_t piece_ = 0;  // bytes that are written now
  Move move_;
  BufferCursor from_;
  std::vector<iovec> buffers_;
  std::vector<std::byte> copy_;
  iovec copy_to_{};
  Reader reader_{*this};
  Writer writer_{*this};
};

}  // namespace martlet::virtio
