"""Read the files of a multipart form (RFC 7578), for a server that leaves that to us."""

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from serve.bundle.limits import MAX_IMAGES, check_count
from serve.errors import InvalidRequest

MAX_PARTS = 2 * MAX_IMAGES  # files and text fields


def read_form(body: bytes, content_type: str) -> list[bytes]:
    """The files of a form, in order; text fields are left out.

    Args:
        body: of the request.
        content_type: the header, with its boundary.

    Raises:
        InvalidRequest: the form can't be taken apart.
        TooManyImages: it has over MAX_IMAGES files.
    """
    _, options = parse_options_header(content_type)
    if not options.get("boundary"):
        raise InvalidRequest(
            "the form's Content-Type has no boundary; leave that header to your HTTP library"
        )
    files, current = list[bytes](), list[bytes]()
    is_file = False
    try:
        with PushMultipartParser(
            options["boundary"],
            len(body),
            max_segment_count=MAX_PARTS,
            header_charset="latin-1",  # of file names, which nothing uses
        ) as parser:
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    is_file = event.filename is not None
                elif event is not None:
                    current.append(bytes(event))
                else:
                    if is_file:
                        files.append(b"".join(current))
                    current.clear()
    except MultipartError as error:
        raise InvalidRequest(f"the form can't be read: {error}") from error
    check_count(len(files))
    return files
