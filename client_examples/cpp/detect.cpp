// Inspects pictures with the vision edge agent: gRPC on a unix socket, pixels through shared memory.
//
//     detect --list                              which models there are, and what they are doing
//     detect SolderJoints --describe             one of them
//     detect SolderJoints board.png              inspect a picture; the model is started where it is not running
//     detect SolderJoints *.png --overlays found
//
// What to copy into your own program: SharedSegment and Agent. What surrounds them reads files and prints.

#include <fcntl.h>
#include <getopt.h>
#include <grpcpp/grpcpp.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "edge-agent.grpc.pb.h"

#ifdef HAVE_PNG
#include <png.h>
#endif
#ifdef HAVE_JPEG
#include <turbojpeg.h>
#endif

namespace {

namespace wire = AWS::LookoutVision;
using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr char kDefaultSocket[] = "unix:///tmp/aws.iot.lookoutvision.EdgeAgent.sock";
constexpr int kLargestSide = 4096;  // the agent takes nothing larger

// ---- Shared memory -----------------------------------------------------------------------------------------------

char path_to_remove[64] = "";  // where a signal finds the segment

/// Ctrl-C and SIGTERM end the program at once, also in the middle of a call, and leave nothing in /dev/shm.
extern "C" void leave(int) {
  if (path_to_remove[0] != '\0') ::unlink(path_to_remove);
  ::_exit(EXIT_FAILURE);
}

/// A piece of shared memory that carries pictures to the agent, and masks back behind them. One for each program.
///
/// It grows when a larger picture comes, and its name goes with the object.
class SharedSegment {
 public:
  /// `socket`: path of the agent's socket. The segment gets its group, so that an agent of another user may open it.
  explicit SharedSegment(const std::string& socket) {
    name_ = "/edge-agent-client-" + std::to_string(::getpid()) + "-" + std::to_string(std::random_device{}());
    std::snprintf(path_to_remove, sizeof path_to_remove, "/dev/shm%s", name_.c_str());
    descriptor_ = ::shm_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
    if (descriptor_ < 0) throw failure("a segment cannot be made in /dev/shm");
    // As long as this process lives: other clients remove segments that nobody holds a lock on.
    ::flock(descriptor_, LOCK_EX);
    struct stat status {};
    // Not a member of that group: then the agent has to be the same user.
    if (::stat(socket.c_str(), &status) == 0 && ::fchown(descriptor_, static_cast<uid_t>(-1), status.st_gid) != 0) {
      errno = 0;
    }
    ::fchmod(descriptor_, 0660);  // whatever the umask is: the agent reads the picture and writes the mask
  }

  ~SharedSegment() {
    if (memory_ != nullptr) ::munmap(memory_, size_);
    ::close(descriptor_);
    ::shm_unlink(name_.c_str());
    path_to_remove[0] = '\0';
  }

  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  const std::string& name() const { return name_; }

  /// The memory, `size` bytes of it at least. What was there before is no longer valid.
  std::uint8_t* at_least(std::size_t size) {
    if (size <= size_) return memory_;
    // Not ftruncate: where /dev/shm is full it succeeds, and the first write kills the program.
    errno = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(size));
    if (errno != 0) throw failure("there is no room for a picture in /dev/shm (df /dev/shm shows it)");
    void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
    if (mapped == MAP_FAILED) throw failure("the segment cannot be mapped");
    if (memory_ != nullptr) ::munmap(memory_, size_);
    memory_ = static_cast<std::uint8_t*>(mapped);
    size_ = size;
    return memory_;
  }

 private:
  static std::system_error failure(const char* what) { return {errno, std::generic_category(), what}; }

  std::string name_;
  int descriptor_ = -1;
  std::uint8_t* memory_ = nullptr;
  std::size_t size_ = 0;
};

// ---- The agent ---------------------------------------------------------------------------------------------------

/// The agent refused a call, or did not answer it. The text is its own sentence.
struct Refused : std::runtime_error {
  explicit Refused(const grpc::Status& status)
      : std::runtime_error(status.error_message()), code(status.error_code()) {}
  grpc::StatusCode code;
};

/// A picture, 8 bits for each of red, green and blue in this order, row by row. OpenCV gives BGR: convert it
/// (cv::COLOR_BGR2RGB). The agent cannot notice, and answers wrongly.
struct Picture {
  Picture(int its_width, int its_height) : width(its_width), height(its_height) {
    if (width < 1 || height < 1 || width > kLargestSide || height > kLargestSide) {
      throw std::runtime_error(std::to_string(width) + " x " + std::to_string(height) + " pixels are more than " +
                               std::to_string(kLargestSide) + " a side, or none");
    }
    pixels.resize(std::size_t{3} * static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
  }
  int width;
  int height;
  std::vector<std::uint8_t> pixels;
};

/// The answer for one picture.
struct Answer {
  wire::DetectAnomalyResult result;
  std::vector<std::uint8_t> mask;  // RGB, white is background; empty for classification models
  double milliseconds;
};

/// The agent on the other side of a unix socket. Every method throws Refused where the agent refuses.
class Agent {
 public:
  /// `patience`: for so long a detection is tried again while the agent restarts.
  explicit Agent(const std::string& address, Seconds patience = Seconds{15}) : patience_(patience) {
    grpc::ChannelArguments options;
    // After a restart of the agent gRPC's defaults reconnect only after seconds. On a local socket trying is free.
    options.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    options.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);  // also how long one attempt may take
    options.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
    // gRPC's own limit of 4 MiB refuses masks beyond about 1180 x 1180 pixels.
    options.SetMaxReceiveMessageSize(3 * kLargestSide * kLargestSide + 64 * 1024);
    stub_ = wire::EdgeAgent::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), options));
  }

  /// All models on this device.
  wire::ListModelsResponse models() {
    return call(&wire::EdgeAgent::Stub::ListModels, wire::ListModelsRequest(), Seconds{5});
  }

  /// One model. `wait_for_agent`: an agent that is away may come back within the call's time.
  wire::ModelDescription describe(const std::string& component, bool wait_for_agent = false) {
    wire::DescribeModelRequest request;
    request.set_model_component(component);
    return call(&wire::EdgeAgent::Stub::DescribeModel, request, Seconds{5}, wait_for_agent).model_description();
  }

  /// Returns when the model is RUNNING; starts it where it is not.
  ///
  /// Throws std::runtime_error where it becomes FAILED, or is not RUNNING in time.
  void start(const std::string& component, Seconds timeout) {
    const auto give_up = Clock::now() + timeout;
    bool asked = false;
    for (auto model = describe(component); model.status() != wire::RUNNING; model = describe(component, true)) {
      const auto told = component + " is " + wire::ModelStatus_Name(model.status()) + ": " + model.status_message();
      if (model.status() == wire::FAILED && asked) throw std::runtime_error(told);
      if (!asked && (model.status() == wire::STOPPED || model.status() == wire::FAILED)) {
        ask_to_start(component);
        asked = true;
      }
      if (Clock::now() > give_up) throw std::runtime_error(told + " (waited in vain for RUNNING)");
      std::this_thread::sleep_for(std::chrono::milliseconds(100));  // loading takes seconds to minutes
    }
  }

  /// Whether the picture shows an anomaly. Pixels and mask go through `segment`; where it is null, in the messages.
  Answer detect(const std::string& component, const Picture& picture, SharedSegment* segment) {
    const auto size = picture.pixels.size();
    wire::DetectAnomaliesRequest request;
    request.set_model_component(component);
    auto& bitmap = *request.mutable_bitmap();
    bitmap.set_width(picture.width);
    bitmap.set_height(picture.height);
    if (segment != nullptr) {
      std::copy(picture.pixels.begin(), picture.pixels.end(), segment->at_least(2 * size));
      auto& mask_place = *request.mutable_anomaly_mask_params()->mutable_shared_memory_handle();
      for (auto* handle : {bitmap.mutable_shared_memory_handle(), &mask_place}) {
        handle->set_name(segment->name());
        handle->set_size(size);
      }
      mask_place.set_offset(size);  // right behind the picture
    } else {
      bitmap.set_byte_data(picture.pixels.data(), size);
    }
    const auto begin = Clock::now();
    Answer answer{detect_patiently(request), {}, 0};
    answer.milliseconds = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    const auto& mask = answer.result.anomaly_mask();
    if (mask.has_shared_memory_handle() && segment != nullptr) {
      const auto* place = segment->at_least(2 * size) + size;
      answer.mask.assign(place, place + size);  // a copy, for the next picture overwrites it
    } else {
      answer.mask.assign(mask.byte_data().begin(), mask.byte_data().end());
    }
    return answer;
  }

 private:
  template <typename Request, typename Response>
  Response call(grpc::Status (wire::EdgeAgent::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                const Request& request, Seconds limit, bool wait_for_agent = false) {
    grpc::ClientContext context;
    const auto whole_limit = std::chrono::duration_cast<std::chrono::milliseconds>(limit);
    context.set_deadline(std::chrono::system_clock::now() + whole_limit);
    context.set_wait_for_ready(wait_for_agent);
    Response response;
    const auto status = (stub_.get()->*method)(&context, request, &response);
    if (!status.ok()) throw Refused(status);
    return response;
  }

  void ask_to_start(const std::string& component) {
    wire::StartModelRequest request;
    request.set_model_component(component);
    try {
      call(&wire::EdgeAgent::Stub::StartModel, request, Seconds{10});
    } catch (const Refused& refused) {
      if (refused.code != grpc::FAILED_PRECONDITION) throw;  // somebody else started it in between: as good
    }
  }

  /// Detections can be asked twice without harm, so an agent that restarts costs seconds and not a picture.
  wire::DetectAnomalyResult detect_patiently(const wire::DetectAnomaliesRequest& request) {
    const auto give_up = Clock::now() + patience_;
    for (bool interrupted = false;;) {
      try {
        return call(&wire::EdgeAgent::Stub::DetectAnomalies, request, Seconds{30}).detect_anomaly_result();
      } catch (const Refused& refused) {
        interrupted = interrupted || refused.code == grpc::UNAVAILABLE;
        if (Clock::now() > give_up || !may_pass(refused, request.model_component(), interrupted)) throw;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  /// Whether the same call may succeed soon: the agent is away, or back and its model is not yet RUNNING.
  ///
  /// A model that somebody stopped stays stopped; one that the restart left STOPPED is started again.
  bool may_pass(const Refused& refused, const std::string& component, bool interrupted) {
    if (refused.code != grpc::UNAVAILABLE && refused.code != grpc::FAILED_PRECONDITION) return false;
    try {
      // Waits for the agent inside a call: gRPC for C++ works on its connections only while a call does. With sleeps
      // between calls that fail at once, an agent that was away for 0.4 s was found again after 5 s.
      const auto status = describe(component, true).status();
      if (status == wire::STOPPED && interrupted) ask_to_start(component);
      return status == wire::STARTING || status == wire::RUNNING || (status == wire::STOPPED && interrupted);
    } catch (const Refused& second) {
      return second.code == grpc::UNAVAILABLE || second.code == grpc::DEADLINE_EXCEEDED;
    }
  }

  Seconds patience_;
  std::unique_ptr<wire::EdgeAgent::Stub> stub_;
};

// ---- Pictures in files -------------------------------------------------------------------------------------------

/// PPM and PGM (binary, 8 bits): what cameras' tools and ImageMagick write without a library.
Picture read_pnm(const std::string& content) {
  std::istringstream file(content);
  file.ignore(2);  // P5 or P6
  int numbers[3] = {};
  for (int& number : numbers) {
    while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    file >> number;
  }
  file.ignore(1);  // the white space before the pixels
  if (!file || numbers[2] != 255) throw std::runtime_error("a PPM or PGM file with 8 bits is needed");
  Picture picture(numbers[0], numbers[1]);
  const std::size_t samples = content[1] == '6' ? 3 : 1;
  const auto at = static_cast<std::size_t>(file.tellg());
  if (content.size() - at < picture.pixels.size() / 3 * samples) throw std::runtime_error("the file ends too early");
  for (std::size_t i = 0; i < picture.pixels.size(); ++i) {
    picture.pixels[i] = static_cast<std::uint8_t>(content[at + (samples == 3 ? i : i / 3)]);
  }
  return picture;
}

#ifdef HAVE_PNG
Picture read_png(const std::string& content) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, decltype(&png_image_free)> guard(&image, png_image_free);
  if (!png_image_begin_read_from_memory(&image, content.data(), content.size())) {
    throw std::runtime_error(image.message);
  }
  if (image.format & PNG_FORMAT_FLAG_LINEAR) throw std::runtime_error("a PNG file with 8 bits is needed, this has 16");
  Picture picture(static_cast<int>(image.width), static_cast<int>(image.height));
  image.format = PNG_FORMAT_RGBA;  // transparency is dropped below; asked for RGB, libpng would blend it in
  std::vector<std::uint8_t> rgba(PNG_IMAGE_SIZE(image));
  if (!png_image_finish_read(&image, nullptr, rgba.data(), 0, nullptr)) throw std::runtime_error(image.message);
  for (std::size_t i = 0; i < picture.pixels.size(); ++i) picture.pixels[i] = rgba[i / 3 * 4 + i % 3];
  return picture;
}
#endif

#ifdef HAVE_JPEG
/// A camera's note that the picture should be shown turned (EXIF orientation) is left alone: models are trained on
/// the pixels as they are stored.
Picture read_jpeg(const std::string& content) {
  const std::unique_ptr<void, decltype(&tjDestroy)> decoder(tjInitDecompress(), tjDestroy);
  const auto* bytes = reinterpret_cast<const unsigned char*>(content.data());
  int width = 0, height = 0, subsampling = 0, colour_space = 0;
  if (tjDecompressHeader3(decoder.get(), bytes, content.size(), &width, &height, &subsampling, &colour_space) != 0) {
    throw std::runtime_error(tjGetErrorStr2(decoder.get()));
  }
  Picture picture(width, height);
  if (tjDecompress2(decoder.get(), bytes, content.size(), picture.pixels.data(), width, 0, height, TJPF_RGB,
                    TJFLAG_ACCURATEDCT) != 0) {
    throw std::runtime_error(tjGetErrorStr2(decoder.get()));
  }
  return picture;
}
#endif

constexpr char kFormats[] =
    "PPM and PGM"
#ifdef HAVE_PNG
    ", PNG"
#endif
#ifdef HAVE_JPEG
    ", JPEG"
#endif
    ;

/// Throws std::runtime_error where the file is no picture.
Picture read_picture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw std::runtime_error("the file cannot be opened");
  const auto begins = [&content](const char* magic) { return content.rfind(magic, 0) == 0; };
  if (begins("P5") || begins("P6")) return read_pnm(content);
#ifdef HAVE_PNG
  if (begins("\x89PNG")) return read_png(content);
#endif
#ifdef HAVE_JPEG
  if (begins("\xFF\xD8")) return read_jpeg(content);
#endif
  throw std::runtime_error("this program reads " + std::string(kFormats) + " files");
}

/// The picture with the mask's areas tinted, as a PPM file.
void write_overlay(const std::filesystem::path& path, const Picture& picture, const std::vector<std::uint8_t>& mask) {
  auto pixels = picture.pixels;
  for (std::size_t i = 0; i + 2 < mask.size() && i + 2 < pixels.size(); i += 3) {
    if (mask[i] == 255 && mask[i + 1] == 255 && mask[i + 2] == 255) continue;
    for (auto c = i; c < i + 3; ++c) pixels[c] = static_cast<std::uint8_t>((3 * pixels[c] + 2 * mask[c]) / 5);
  }
  std::ofstream file(path, std::ios::binary);
  file << "P6\n" << picture.width << ' ' << picture.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
  if (!file.flush()) throw std::runtime_error(path.string() + " cannot be written");
}

// ---- The command line --------------------------------------------------------------------------------------------

struct Arguments {
  std::string component;
  std::vector<std::string> pictures;
  std::string socket = kDefaultSocket;
  std::string overlays;
  Seconds start_timeout{180};
  Seconds patience{15};
  bool list = false;
  bool describe = false;
  bool by_message = false;

  /// The socket in the file system.
  std::string socket_path() const {
    for (const std::string prefix : {"unix://", "unix:"}) {
      if (socket.rfind(prefix, 0) == 0) return socket.substr(prefix.size());
    }
    return socket;
  }
};

constexpr char kUsage[] =
    "usage: detect [options] COMPONENT PICTURE...\n"
    "       detect [--socket ADDRESS] --list\n"
    "       detect [--socket ADDRESS] COMPONENT --describe\n"
    "\n"
    "  --list             show all models and end\n"
    "  --describe         show one model and end\n"
    "  --overlays DIR     write each picture with what was found drawn over it, as PPM files\n"
    "  --message          send pixels and fetch masks in the messages, not through shared memory\n"
    "  --start-timeout S  seconds to wait until the model is RUNNING (180)\n"
    "  --patience S       seconds for which a picture is tried again while the agent restarts (15)\n"
    "  --socket ADDRESS   where the agent listens (unix:///tmp/aws.iot.lookoutvision.EdgeAgent.sock)\n"
    "  --help             show this and end\n";

[[noreturn]] void end_with_usage(const std::string& problem) {
  std::fprintf(stderr, "%sdetect: %s\n", kUsage, problem.c_str());
  std::exit(2);
}

Seconds read_seconds(const char* word) {
  char* end = nullptr;
  const double seconds = std::strtod(word, &end);
  if (end == word || *end != '\0') end_with_usage(std::string(word) + " is no number of seconds");
  return Seconds{seconds};
}

Arguments read_arguments(int count, char** words) {
  const option options[] = {{"list", no_argument, nullptr, 'l'},
                            {"describe", no_argument, nullptr, 'd'},
                            {"overlays", required_argument, nullptr, 'o'},
                            {"message", no_argument, nullptr, 'm'},
                            {"start-timeout", required_argument, nullptr, 't'},
                            {"patience", required_argument, nullptr, 'p'},
                            {"socket", required_argument, nullptr, 's'},
                            {"help", no_argument, nullptr, 'h'},
                            {nullptr, 0, nullptr, 0}};
  Arguments arguments;
  for (int found; (found = ::getopt_long(count, words, "", options, nullptr)) != -1;) {
    switch (found) {
      case 'l': arguments.list = true; break;
      case 'd': arguments.describe = true; break;
      case 'o': arguments.overlays = optarg; break;
      case 'm': arguments.by_message = true; break;
      case 's': arguments.socket = optarg; break;
      case 't': arguments.start_timeout = read_seconds(optarg); break;
      case 'p': arguments.patience = read_seconds(optarg); break;
      case 'h': std::fputs(kUsage, stdout); std::exit(EXIT_SUCCESS);
      default: end_with_usage("see above");
    }
  }
  if (optind < count) arguments.component = words[optind++];
  arguments.pictures.assign(words + optind, words + count);
  if (!arguments.list && arguments.component.empty()) end_with_usage("name a model, or ask for --list");
  if (!arguments.list && !arguments.describe && arguments.pictures.empty()) {
    end_with_usage("name a picture, or ask for --describe");
  }
  return arguments;
}

const char* name_of(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
      "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
      "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
  return static_cast<std::size_t>(code) < std::size(kNames) ? kNames[code] : "UNKNOWN";
}

/// The next step for whoever reads the refusal.
std::string what_to_do(grpc::StatusCode code, const Arguments& arguments) {
  const auto path = arguments.socket_path();
  switch (code) {
    case grpc::UNAVAILABLE:
      if (::access(path.c_str(), F_OK) == 0 && ::access(path.c_str(), R_OK | W_OK) != 0) {
        return "Your user may not use " + path + ": join the group that owns it (ls -l shows it).";
      }
      return "No agent answers at " + arguments.socket + ". Start one with `edge-agent serve`, see the log of one " +
             "that runs, or name another address with --socket.";
    case grpc::NOT_FOUND: return "--list shows the models on this device.";
    case grpc::RESOURCE_EXHAUSTED: return "Send fewer pictures at once, or stop a model that is not needed.";
    case grpc::FAILED_PRECONDITION: return "The model is in another state than this needs; --describe shows it.";
    case grpc::DEADLINE_EXCEEDED: return "--list shows whether the agent answers at all, its log what it is doing.";
    default: return "The agent's log has the details.";
  }
}

template <typename Models>
void print_models(const Models& models) {
  if (models.empty()) std::puts("The agent has no models.");
  for (const auto& model : models) {
    std::printf("%s  %s  %s\n", model.model_component().c_str(), wire::ModelStatus_Name(model.status()).c_str(),
                model.status_message().c_str());
  }
}

/// The anomaly types with their share of the picture: `  scratch 0.8 %, chip 1.2 %`.
std::string areas(const wire::DetectAnomalyResult& result) {
  std::string text;
  for (const auto& anomaly : result.anomalies()) {
    if (anomaly.name() == "background") continue;
    char share[32];  // the agent's percentage is a fraction, 0 to 1, in spite of its name
    std::snprintf(share, sizeof share, " %.1f %%", 100.0 * double{anomaly.pixel_anomaly().total_percentage_area()});
    text += (text.empty() ? "  " : ", ") + anomaly.name() + share;
  }
  return text;
}

/// Prints a line per answer as it comes, and a summary.
class Table {
 public:
  explicit Table(const std::vector<std::string>& pictures) : asked_(pictures.size()) {
    for (const auto& picture : pictures) width_ = std::max(width_, static_cast<int>(file_name(picture).size()));
    std::printf("%-*s  verdict    confidence  score  threshold       ms  types and areas\n", width_, "picture");
  }

  void print_answer(const std::string& picture, const Answer& answer) {
    const auto& result = answer.result;
    const double score = result.anomaly_score(), threshold = result.anomaly_threshold();
    std::printf("%-*s  %-9s  %10.3f  %5.3f %s %7.3f %8.1f%s\n", width_, file_name(picture).c_str(),
                result.is_anomalous() ? "ANOMALOUS" : "normal", double{result.confidence()}, score,
                score >= threshold ? ">=" : "< ", threshold, answer.milliseconds, areas(result).c_str());
    anomalous_ += result.is_anomalous() ? 1 : 0;
    milliseconds_.push_back(answer.milliseconds);
  }

  void print_failure(const std::string& picture, const std::string& reason) {
    std::printf("%-*s  no answer  %s\n", width_, file_name(picture).c_str(), reason.c_str());
  }

  void print_summary() {
    std::printf("%zu of %zu answered, %zu anomalous", milliseconds_.size(), asked_, anomalous_);
    if (!milliseconds_.empty()) {
      const auto middle = milliseconds_.begin() + static_cast<std::ptrdiff_t>(milliseconds_.size() / 2);
      std::nth_element(milliseconds_.begin(), middle, milliseconds_.end());
      std::printf(", median %.1f ms", *middle);
    }
    std::putchar('\n');
  }

  bool all_answered() const { return milliseconds_.size() == asked_; }

 private:
  static std::string file_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

  std::size_t asked_;
  std::size_t anomalous_ = 0;
  int width_ = static_cast<int>(std::strlen("picture"));
  std::vector<double> milliseconds_;
};

/// Where to write the overlay of a picture. Equal names from two folders get a number: nothing is overwritten.
std::filesystem::path overlay_path(const std::string& folder, const std::string& picture,
                                   std::set<std::string>& taken) {
  const auto stem = std::filesystem::path(picture).stem().string();
  auto name = stem;
  for (int number = 2; !taken.insert(name).second; ++number) name = stem + "-" + std::to_string(number);
  return std::filesystem::path(folder) / (name + ".ppm");
}

/// Asks about each picture; whether all were answered.
bool inspect(Agent& agent, const Arguments& arguments) {
  agent.start(arguments.component, arguments.start_timeout);
  if (!arguments.overlays.empty()) std::filesystem::create_directories(arguments.overlays);
  std::unique_ptr<SharedSegment> segment;
  if (!arguments.by_message) segment = std::make_unique<SharedSegment>(arguments.socket_path());
  std::set<std::string> taken;
  Table table(arguments.pictures);
  for (const auto& path : arguments.pictures) {
    std::unique_ptr<Picture> picture;
    try {
      picture = std::make_unique<Picture>(read_picture(path));
    } catch (const std::runtime_error& error) {
      table.print_failure(path, std::string("cannot be read as a picture: ") + error.what());
      continue;
    }
    try {
      const auto answer = agent.detect(arguments.component, *picture, segment.get());
      table.print_answer(path, answer);
      if (!arguments.overlays.empty()) {
        write_overlay(overlay_path(arguments.overlays, path, taken), *picture, answer.mask);
      }
    } catch (const Refused& refused) {
      if (refused.code != grpc::INVALID_ARGUMENT) {
        table.print_summary();
        throw;
      }
      // This picture is refused; the next may be fine.
      table.print_failure(path, std::string(name_of(refused.code)) + ": " + refused.what());
    }
  }
  table.print_summary();
  return table.all_answered();
}

bool run(const Arguments& arguments) {
  Agent agent(arguments.socket, arguments.patience);
  if (arguments.list) {
    print_models(agent.models().models());
    return true;
  }
  if (arguments.describe) {
    print_models(std::vector{agent.describe(arguments.component)});
    return true;
  }
  return inspect(agent, arguments);
}

}  // namespace

/// Exit code 0 when everything asked for was answered, 1 otherwise, 2 for a wrong command line.
int main(int count, char** words) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // whoever reads along sees each answer when it comes
  std::signal(SIGINT, leave);
  std::signal(SIGTERM, leave);
  const auto arguments = read_arguments(count, words);
  try {
    return run(arguments) ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const Refused& refused) {
    std::fprintf(stderr, "%s: %s\n%s\n", name_of(refused.code), refused.what(),
                 what_to_do(refused.code, arguments).c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return EXIT_FAILURE;
}
