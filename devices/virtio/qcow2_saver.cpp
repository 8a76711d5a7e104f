#include "devices/virtio/qcow2_saver.h"

#include <utility>

namespace martlet::virtio {

using Kind = DiskRequest::Kind;

void Qcow2Saver::flush(DiskRequest& request) noexcept {
  waiting_.push_back(&request);
  start();
}

void Qcow2Saver::start() noexcept {
  if (!busy_) {
    begin_round();
  }
}

void Qcow2Saver::begin_round() noexcept {
  busy_ = true;
  served_ = std::exchange(waiting_, {});
  changes_ = stack_.top().take();
  group_ = 0;
  piece_ = 0;
  synced_ = false;
  next();
}

/// The first group is followed by a flush even if it is empty: it takes the data along.
void Qcow2Saver::next() noexcept {
  while (group_ < changes_.groups.size()) {
    const auto& group = changes_.groups[group_];
    if (piece_ < group.size()) {
      const auto& bytes = group[piece_].bytes;
      // A write only reads from its buffer; iovec has no word for that.
      buffer_ = {.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
      synced_ = false;
      run({.kind = Kind::Write, .offset = group[piece_++].offset, .length = buffer_.iov_len, .buffers = {&buffer_, 1}});
      return;
    }
    ++group_;
    piece_ = 0;
    if (!std::exchange(synced_, true)) {
      run({.kind = Kind::Flush});
      return;
    }
  }
  end(0);
}

void Qcow2Saver::run(const Work& transfer) noexcept { Transfer::begin(stack_, Qcow2Stack::kTop, transfer); }

void Qcow2Saver::transferred(int error) noexcept {
  if (error != 0) {
    end(error);
  } else {
    next();
  }
}

void Qcow2Saver::end(int error) noexcept {
  std::vector<ClusterRun> left;
  if (error == 0) {
    stack_.top().saved(changes_);
    left = std::move(changes_.left);
  } else {
    stack_.top().put_back(std::move(changes_));
  }
  changes_ = {};
  busy_ = false;
  for (auto* const request : std::exchange(served_, {})) {
    request->done(error);
  }
  saved_(std::move(left), error);
  if (!waiting_.empty()) {
    start();
  }
}

}  // namespace martlet::virtio
