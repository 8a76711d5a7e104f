#include "devices/virtio/qcow2_stack.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace martlet::virtio {

using Source = Qcow2Stack::Piece::Source;

Qcow2Stack::Qcow2Stack(std::unique_ptr<Qcow2Image> top, std::unique_ptr<Qcow2Image> below,
                       std::unique_ptr<ImageFile> raw_below)
    : top_{std::move(top)}, below_{std::move(below)}, raw_below_{std::move(raw_below)} {}

Disk& Qcow2Stack::disk(Layer layer) noexcept {
  if (layer == kTop) {
    return top_->file().disk();
  }
  return below_ ? below_->file().disk() : raw_below_->disk();
}

int Qcow2Stack::find_in(Layer layer, std::uint64_t offset, std::uint64_t limit, Piece& piece, bool& unallocated) {
  auto& from = image(layer);
  const auto cluster = from.header().cluster();
  piece = {.length = limit, .layer = layer};
  if (layer != kTop) {
    if (offset >= from.header().size) {
      return 0;
    }
    limit = std::min(limit, from.header().size - offset);
  }
  const auto inside = offset % cluster;
  Qcow2Map::Extent extent;
  if (const int error = from.map().find(offset / cluster, (inside + limit - 1) / cluster + 1, extent); error != 0) {
    return error;
  }
  piece.length = std::min(limit, extent.clusters * cluster - inside);
  switch (extent.kind) {
    case Qcow2Map::Extent::Kind::Unallocated:
      unallocated = true;
      break;
    case Qcow2Map::Extent::Kind::Zero:
      break;
    case Qcow2Map::Extent::Kind::Data:
      piece.offset = extent.host + inside;
      if (piece.offset < from.file().size()) {  // the last cluster of an image need not be there as a whole
        piece.source = Source::File;
        piece.length = std::min(piece.length, from.file().size() - piece.offset);
      }
      break;
    case Qcow2Map::Extent::Kind::Compressed:
      piece.source = Source::Compressed;
      piece.offset = inside;
      piece.entry = extent.host;
      break;
  }
  return 0;
}

int Qcow2Stack::find(std::uint64_t offset, std::uint64_t limit, Piece& piece) noexcept {
  bool unallocated = false;
  const int error = find_in(kTop, offset, limit, piece, unallocated);
  if (error != 0 || !unallocated) {
    return error;
  }
  if (below_) {
    return find_in(kBelow, offset, piece.length, piece, unallocated);
  }
  if (raw_below_ && offset < raw_below_->size()) {
    piece.source = Source::File;
    piece.layer = kBelow;
    piece.offset = offset;
    piece.length = std::min(piece.length, raw_below_->size() - offset);
  }
  return 0;
}

bool Qcow2Stack::is_zero(std::uint64_t offset, std::uint64_t length) noexcept {
  while (length != 0) {
    Piece piece;
    if (find(offset, length, piece) != 0 || piece.source != Source::Zeroes) {
      return false;
    }
    offset += piece.length;
    length -= piece.length;
  }
  return true;
}

void Qcow2Stack::Transfer::begin(Qcow2Stack& stack, Layer layer, const Work& transfer) noexcept {
  stack_ = &stack;
  layer_ = layer;
  work = transfer;
  ++stack.in_flight_[layer];
  stack.disk(layer).submit(*this);
}

void Qcow2Stack::Transfer::done(int error) noexcept {
  --stack_->in_flight_[layer_];
  transferred(error);
}

void Qcow2Stack::commit() noexcept {
  disk(kTop).commit();
  if (has_backing()) {
    disk(kBelow).commit();
  }
}

void Qcow2Stack::wait() noexcept {
  commit();
  if (in_flight_[kTop] != 0) {
    disk(kTop).wait();
  } else if (in_flight_[kBelow] != 0) {
    disk(kBelow).wait();
  }
}

void Qcow2Stack::on_settled(const std::function<void()>& settled) {
  disk(kTop).on_settled(settled);
  if (has_backing()) {
    disk(kBelow).on_settled(settled);
  }
}

void Qcow2Stack::wake() noexcept {
  again_ = true;
  if (waking_ || parked_.empty()) {
    return;
  }
  waking_ = true;
  while (std::exchange(again_, false)) {
    for (auto* const waiter : std::exchange(parked_, {})) {
      waiter->retry();
    }
  }
  waking_ = false;
}

void Qcow2Reader::read(std::uint64_t offset, std::uint64_t length, std::span<const iovec> buffers) noexcept {
  to_ = BufferCursor{buffers};
  at_ = offset;
  left_ = length;
  next();
}

void Qcow2Reader::next() noexcept {
  while (left_ != 0) {
    if (read_cancelled()) {
      read_done(ECANCELED);
      return;
    }
    if (const int error = stack_.find(at_, left_, piece_); error != 0) {
      read_done(error);
      return;
    }
    switch (piece_.source) {
      case Source::Zeroes:
        to_.fill_zeroes(piece_.length);
        break;
      case Source::File:
        buffers_.clear();
        to_.take(piece_.length, buffers_);
        begin(stack_, piece_.layer,
              {.kind = Kind::Read, .offset = piece_.offset, .length = piece_.length, .buffers = buffers_});
        return;
      case Source::Compressed: {
        auto& image = stack_.image(piece_.layer);
        if (!image.unpacked(piece_.entry).empty()) {
          to_.copy_from(image.unpacked(piece_.entry).subspan(piece_.offset, piece_.length));
          break;
        }
        auto [offset, bytes] = image.map().compressed_bytes(piece_.entry);
        bytes = std::min(bytes, image.file().size() - offset);
        if (!stack_.compressed.take(bytes)) {
          stack_.park(*this);
          return;
        }
        packed_.resize(bytes);
        buffers_.assign(1, {.iov_base = packed_.data(), .iov_len = bytes});
        begin(stack_, piece_.layer, {.kind = Kind::Read, .offset = offset, .length = bytes, .buffers = buffers_});
        return;
      }
    }
    at_ += piece_.length;
    left_ -= piece_.length;
  }
  read_done(0);
}

int Qcow2Reader::take_unpacked() noexcept {
  auto& image = stack_.image(piece_.layer);
  const int error = image.unpack(piece_.entry, packed_);
  if (error == 0) {
    to_.copy_from(image.unpacked(piece_.entry).subspan(piece_.offset, piece_.length));
  }
  return error;
}

void Qcow2Reader::transferred(int error) noexcept {
  if (piece_.source == Source::Compressed) {
    if (error == 0) {
      error = take_unpacked();
    }
    stack_.compressed.give(packed_.size());
    packed_ = {};
    stack_.wake();
  }
  if (error != 0) {
    read_done(error);
    return;
  }
  at_ += piece_.length;
  left_ -= piece_.length;
  next();
}

}  // namespace martlet::virtio
