// Prints the command line it was handed.
#include "args.h"
#include "pvh.h"
#include "uart.h"

int guest_main(const guest::HvmStartInfo& /*info*/) {
  guest::print("[", guest::command_line, "]\n");
  return 0;
}
