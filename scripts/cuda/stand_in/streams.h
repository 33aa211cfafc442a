// Streams: what is asked of one is done in its order, and between streams in an order drawn by lot, as late as a wait allows. A wait that
// is missing then shows as numbers that were not there yet.
#pragma once
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// More than so many pieces of work wait nowhere: memory is freed as they are done.
#define PENDING 64

enum Work { KERNEL, COPY, FILL, FREE, WAIT };

typedef struct Stream Stream;
typedef struct Piece {
    struct Piece *next;
    enum Work work;
    void (*run)(void **arguments, const unsigned *grid, const unsigned *block);
    unsigned grid[3], block[3], count;
    void **arguments;
    // Of copies, fills and frees; a value of a fill.
    void *to;
    const void *from;
    size_t bytes;
    int value;
    // Of a wait: until so many pieces of that stream are done.
    Stream *other;
    unsigned long until;
} Piece;

struct Stream {
    Piece *first, **last;
    unsigned long asked, done;
    Stream *next;
};

static Stream *streams;
static pthread_mutex_t working;

__attribute__((constructor)) static void start_streams(void) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&working, &kind);
}

static Stream *new_stream(void) {
    Stream *stream = calloc(1, sizeof *stream);
    stream->last = &stream->first;
    pthread_mutex_lock(&working);
    stream->next = streams;
    streams = stream;
    pthread_mutex_unlock(&working);
    return stream;
}

static void do_until(Stream *stream, unsigned long until);

static void do_piece(Piece *piece) {
    if (piece->work == KERNEL) piece->run(piece->arguments, piece->grid, piece->block);
    if (piece->work == COPY) memmove(piece->to, piece->from, piece->bytes);
    if (piece->work == FILL) memset(piece->to, piece->value, piece->bytes);
    if (piece->work == FREE) {
        // Whoever still reads it sees no numbers.
        memset(piece->to, 0xff, malloc_usable_size(piece->to));
        free(piece->to);
    }
    if (piece->work == WAIT) do_until(piece->other, piece->until);
    for (unsigned i = 0; i < piece->count; ++i) free(piece->arguments[i]);
    free(piece->arguments);
    free(piece);
}

static void do_until(Stream *stream, unsigned long until) {
    while (stream->done < until && stream->first) {
        Piece *piece = stream->first;
        if (!(stream->first = piece->next)) stream->last = &stream->first;
        do_piece(piece);
        ++stream->done;
    }
}

// Does all that was asked of a stream so far; of every stream where it is the default one.
static void finish(Stream *of) {
    pthread_mutex_lock(&working);
    for (Stream *stream = streams; stream; stream = stream->next) {
        if (!of || stream == of) do_until(stream, stream->asked);
    }
    pthread_mutex_unlock(&working);
}

// Adds a piece to a stream, and does some of what waits, here or elsewhere.
static void ask(Stream *stream, Piece piece) {
    static uint64_t lot = 1;
    Piece *own = malloc(sizeof *own);
    *own = piece;
    own->next = NULL;
    if (!stream) {
        finish(NULL);
        do_piece(own);
        return;
    }
    pthread_mutex_lock(&working);
    *stream->last = own;
    stream->last = &own->next;
    ++stream->asked;
    for (Stream *any = streams; any; any = any->next) {
        lot = lot * 6364136223846793005u + 1442695040888963407u;
        unsigned drawn = lot >> 33;
        if (drawn % 4 == 0) do_until(any, any->done + drawn / 4 % PENDING);
        if (any->asked - any->done > PENDING) do_until(any, any->asked - PENDING);
    }
    pthread_mutex_unlock(&working);
}
