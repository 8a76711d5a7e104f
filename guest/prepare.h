#pragma once

namespace guest {

/// What a program expects of a system: file systems, device nodes, the loopback interface.
void prepare_system() noexcept;

}  // namespace guest
