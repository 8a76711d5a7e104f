#include "vmm/base/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "vmm/base/error.h"

namespace martlet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

enum class Colour { Red, Green };

std::optional<Colour> take_colour(Options& options) {
  return options.take_choice<Colour>("colour", {{"red", Colour::Red}, {"green", Colour::Green}});
}

std::string refusal(const std::function<void()>& what) {
  try {
    what();
  } catch (const HostError& error) {
    return error.what();
  }
  ADD_FAILURE() << "not refused";
  return {};
}

TEST(Options, AreTakenByName) {
  Options options{"path=a=b,readonly,size=4K,n=7,colour=green,quiet=off", "--thing"};
  EXPECT_EQ(options.take_first("path"), "a=b");
  EXPECT_EQ(options.take_flag("readonly"), true);
  EXPECT_EQ(options.take_flag("quiet"), false);
  EXPECT_EQ(options.take_size("size"), 4096U);
  EXPECT_EQ(options.take_number("n", {.min = 1, .max = 7}), 7U);
  EXPECT_EQ(take_colour(options), Colour::Green);
  EXPECT_EQ(options.take("missing"), std::nullopt);
  EXPECT_EQ(options.take_flag("absent"), std::nullopt);
  options.finish();
}

TEST(Options, TheFirstMayBeBareAndCommasAreWrittenTwice) {
  Options options{"a,,b.img,readonly=on", "--thing"};
  EXPECT_EQ(options.take_first("path"), "a,b.img");
  EXPECT_EQ(options.take_flag("readonly"), true);
  options.finish();

  Options named{"readonly,path=disk", "--thing"};
  EXPECT_EQ(named.take_first("path"), "disk");
  EXPECT_EQ(named.take_flag("readonly"), true);
  named.finish();
}

TEST(Options, RefuseWhatNobodyKnowsAndSuggestTheNearest) {
  Options options{"disk.img,redonly=on", "--disk"};
  static_cast<void>(options.take_first("path"));
  static_cast<void>(options.take_flag("readonly"));
  EXPECT_THAT(refusal([&] { options.finish(); }),
              AllOf(HasSubstr("--disk"), HasSubstr("'redonly'"), HasSubstr("did you mean readonly?")));

  Options bare{"path=a,extra", "--disk"};
  static_cast<void>(bare.take_first("path"));
  EXPECT_THAT(refusal([&] { bare.finish(); }), HasSubstr("'extra' is unknown"));
}

TEST(Options, AreGivenOnceUnlessAllAreWanted) {
  EXPECT_THAT(refusal([] { static_cast<void>(Options("a,a=1", "--thing").take("a")); }), HasSubstr("a is given twice"));
  EXPECT_THAT(refusal([] { static_cast<void>(Options("a,a", "--thing").take_flag("a")); }), HasSubstr("given twice"));
  Options options{"a=1,b=2,a=3", "--thing"};
  EXPECT_EQ(options.take_all("a"), (std::vector<std::string>{"1", "3"}));
  EXPECT_EQ(options.take("b"), "2");
  EXPECT_TRUE(options.take_all("c").empty());
  options.finish();
  EXPECT_THAT(refusal([] { static_cast<void>(Options("a=1,a", "--thing").take_all("a")); }),
              HasSubstr("needs a value"));
}

TEST(Options, RefuseBadListsAndValuesByName) {
  for (const auto* text : {"", ",", "a,", "=x", "a=1,,=2,"}) {
    EXPECT_THROW((Options{text, "--thing"}), HostError) << text;
  }
  Options options{"f=yes,n=8,m=1x,s=big,colour=blue,e=,b", "--thing"};
  EXPECT_THAT(refusal([&] { static_cast<void>(options.take_flag("f")); }), HasSubstr("--thing f: 'yes'"));
  EXPECT_THAT(refusal([&] { static_cast<void>(options.take_number("n", {.min = 1, .max = 7})); }), HasSubstr("1 to 7"));
  EXPECT_THAT(refusal([&] { static_cast<void>(options.take_number("m")); }), HasSubstr("'1x'"));
  EXPECT_THAT(refusal([&] { static_cast<void>(options.take_size("s")); }), HasSubstr("--thing s"));
  EXPECT_THAT(refusal([&] { static_cast<void>(take_colour(options)); }), HasSubstr("red, green"));
  EXPECT_THAT(refusal([&] { static_cast<void>(options.take("e")); }), HasSubstr("needs a value"));
  EXPECT_THAT(refusal([&] { static_cast<void>(options.take("b")); }), HasSubstr("needs a value"));
}

}  // namespace
}  // namespace martlet
