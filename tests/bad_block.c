/*
 * A block that cannot be read, for tests/damaged_source.rs: loaded into a server with LD_PRELOAD, it makes reading one
 * position (POSITION) of the files whose names end in NAME fail with EIO. pg_read_binary_file reads with fread.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int
is_bad(FILE *stream, size_t bytes)
{
	char		link[64];
	char		path[4096];
	long		begin = ftell(stream);
	size_t		length = strlen(NAME);
	ssize_t		found;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fileno(stream));
	found = readlink(link, path, sizeof(path));
	return found >= (ssize_t) length && memcmp(path + found - length, NAME, length) == 0 &&
		begin <= POSITION && POSITION - begin < (long) bytes;
}

size_t
fread(void *to, size_t size, size_t count, FILE *stream)
{
	size_t		(*next) (void *, size_t, size_t, FILE *) = dlsym(RTLD_NEXT, "fread");

	if (is_bad(stream, size * count))
	{
		/* What ferror() looks at. */
		stream->_flags |= _IO_ERR_SEEN;
		errno = EIO;
		return 0;
	}
	return next(to, size, count, stream);
}
