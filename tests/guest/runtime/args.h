#pragma once
// The guest's command line: words of the form name=value.

#include "io.h"

namespace guest {

/// The whole line, copied before anything else ran.
extern char command_line[4096];

/// What follows "name=", up to the next space; nullptr when there is no such word. The last one counts.
const char* word(const char* name);
bool word_is(const char* name, const char* value);
u64 number_word(const char* name, u64 otherwise);

}  // namespace guest
