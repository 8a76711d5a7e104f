#pragma once

#include "boot/acpi.h"
#include "boot/aml.h"

namespace martlet {

/// The definition block of the machine's DSDT: its devices that no bus can enumerate.
[[nodiscard]] aml::Bytes dsdt_terms(const AcpiConfig& config);

}  // namespace martlet
