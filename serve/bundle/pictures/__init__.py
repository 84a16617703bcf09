"""Image files → upright 8-bit pictures.

reading.py  one file to one picture
kinds.py    which kind of file some bytes are
sizes.py    the declared size: allowed, and such as the file's bytes can hold
exif.py     which way up a picture is
parts.py    PNG, JPEG, GIF and WebP without their notes (EXIF, ICC, XMP, text)
avif.py     how many pixels an AVIF has decoded, whatever it declares
tiff.py     the first page of a TIFF without its notes
deep.py     TIFF samples that Pillow has no mode for
pnm.py      PBM, PGM and PPM
samples.py  depth to 8 bits, and transparency to a ground
"""
