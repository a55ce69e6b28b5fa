// Encodes texts that are token ids already with llama.cpp's own embedding path, and says what it took.
//
//     llama-encode MODEL TOKENS VECTORS CONTEXTS THREADS BATCH FLASH
//
// TOKENS is a JSON list of lists of ids. VECTORS gets one row of f32 a text, mean-pooled by llama.cpp and
// normalised. CONTEXTS lanes of THREADS threads share the work; each takes the longest texts that are left,
// as many as fit into BATCH tokens; 1 makes every text a batch of its own. FLASH is `on` or `off`.

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "llama.h"

namespace {

using Text = std::vector<llama_token>;

struct Batch {
    std::vector<size_t> texts;
    size_t n_tokens = 0;
};

std::vector<Text> read_texts(const char * path) {
    std::ifstream file(path, std::ios::binary);
    const std::string json((std::istreambuf_iterator<char>(file)), {});
    std::vector<Text> texts;
    int depth = 0;
    for (size_t at = 0; at < json.size(); ++at) {
        if (json[at] == '[' && ++depth == 2) {
            texts.emplace_back();
        } else if (json[at] == ']') {
            --depth;
        } else if (json[at] >= '0' && json[at] <= '9') {
            size_t n_read = 0;
            texts.back().push_back(std::stoi(json.substr(at, 12), &n_read));
            at += n_read - 1;
        }
    }
    return texts;
}

std::vector<Batch> pack(const std::vector<Text> & texts, size_t budget, size_t most) {
    std::vector<size_t> order(texts.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return texts[a].size() > texts[b].size();
    });
    std::vector<Batch> batches;
    for (const size_t text : order) {
        const size_t length = texts[text].size();
        if (batches.empty() || batches.back().n_tokens + length > budget || batches.back().texts.size() == most) {
            batches.emplace_back();
        }
        batches.back().texts.push_back(text);
        batches.back().n_tokens += length;
    }
    return batches;
}

double seconds(const timeval & time) { return double(time.tv_sec) + 1e-6 * double(time.tv_usec); }

double processor_time() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// As the benchmark's record writes a duration.
std::string duration(double seconds) {
    const double whole = std::floor(seconds);
    return "{\"secs\": " + std::to_string(uint64_t(whole)) +
           ", \"nanos\": " + std::to_string(uint64_t((seconds - whole) * 1e9)) + "}";
}

// In bytes; the system counts KiB.
long peak_memory() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss * 1024;
}

void encode(llama_context * context, llama_batch & room, const std::vector<Text> & texts, const Batch & batch,
            size_t n_dims, float * vectors) {
    room.n_tokens = 0;
    for (size_t row = 0; row < batch.texts.size(); ++row) {
        const Text & text = texts[batch.texts[row]];
        for (size_t at = 0; at < text.size(); ++at) {
            const int32_t to = room.n_tokens++;
            room.token[to] = text[at];
            room.pos[to] = llama_pos(at);
            room.n_seq_id[to] = 1;
            room.seq_id[to][0] = llama_seq_id(row);
            room.logits[to] = 1;
        }
    }
    if (llama_encode(context, room) != 0) {
        throw std::runtime_error("llama_encode failed");
    }
    for (size_t row = 0; row < batch.texts.size(); ++row) {
        const float * from = llama_get_embeddings_seq(context, llama_seq_id(row));
        if (from == nullptr) {
            throw std::runtime_error("llama.cpp made no vector");
        }
        double square = 0;
        for (size_t i = 0; i < n_dims; ++i) {
            square += double(from[i]) * from[i];
        }
        float * to = vectors + batch.texts[row] * n_dims;
        std::transform(from, from + n_dims, to, [&](float x) { return float(x / std::sqrt(square)); });
    }
}

int run(char ** args) {
    const std::vector<Text> texts = read_texts(args[2]);
    const size_t n_contexts = std::stoul(args[4]);
    const int32_t n_threads = std::stoi(args[5]);
    const size_t budget = std::stoul(args[6]);
    const bool flash = std::string(args[7]) == "on";

    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    llama_model * model = llama_model_load_from_file(args[1], model_params);
    if (model == nullptr || texts.empty()) {
        throw std::runtime_error("no model, or no texts");
    }
    const std::vector<Batch> batches = pack(texts, budget, llama_max_parallel_sequences());
    size_t largest = 0, most = 0;
    for (const Batch & batch : batches) {
        largest = std::max(largest, batch.n_tokens);
        most = std::max(most, batch.texts.size());
    }

    llama_context_params params = llama_context_default_params();
    // Its trial graph spreads the tokens evenly over the sequences.
    largest = (largest + most - 1) / most * most;
    params.n_ctx = params.n_batch = params.n_ubatch = uint32_t(largest);
    params.n_seq_max = uint32_t(most);
    params.n_threads = params.n_threads_batch = n_threads;
    params.embeddings = true;
    params.pooling_type = LLAMA_POOLING_TYPE_MEAN;
    params.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    std::vector<llama_context *> contexts;
    for (size_t i = 0; i < n_contexts; ++i) {
        contexts.push_back(llama_init_from_model(model, params));
        if (contexts.back() == nullptr) {
            throw std::runtime_error("no context");
        }
    }

    const size_t n_dims = size_t(llama_model_n_embd(model));
    std::vector<float> vectors(texts.size() * n_dims);
    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    const auto lane = [&](llama_context * context) {
        llama_batch room = llama_batch_init(int32_t(largest), 0, 1);
        try {
            for (size_t at = next++; at < batches.size(); at = next++) {
                encode(context, room, texts, batches[at], n_dims, vectors.data());
            }
        } catch (const std::exception & error) {
            std::fprintf(stderr, "%s\n", error.what());
            failed = true;
        }
        llama_batch_free(room);
    };

    const double before = processor_time();
    const auto started = std::chrono::steady_clock::now();
    std::vector<std::thread> lanes;
    for (llama_context * context : contexts) {
        lanes.emplace_back(lane, context);
    }
    for (std::thread & thread : lanes) {
        thread.join();
    }
    const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    const double processor = processor_time() - before;
    if (failed) {
        return EXIT_FAILURE;
    }
    std::ofstream out(args[3], std::ios::binary);
    out.write(reinterpret_cast<const char *>(vectors.data()), std::streamsize(vectors.size() * sizeof(float)));
    out.close();
    size_t n_tokens = 0;
    for (const Batch & batch : batches) {
        n_tokens += batch.n_tokens;
    }
    std::printf("{\"wall\": %s, \"cpu\": %s, \"peak_memory\": %ld, \"n_padded_tokens\": %zu, "
                "\"setting\": null, \"tried\": [], \"backend\": \"llama.cpp %s\", \"n_dims\": %zu}\n",
                duration(wall).c_str(), duration(processor).c_str(), peak_memory(), n_tokens,
                llama_version(), n_dims);
    return out ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int n_args, char ** args) {
    if (n_args != 8) {
        std::fprintf(stderr, "usage: llama-encode MODEL TOKENS VECTORS CONTEXTS THREADS BATCH FLASH\n");
        return 2;
    }
    try {
        return run(args);
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return EXIT_FAILURE;
    }
}
