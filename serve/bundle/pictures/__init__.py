"""Image files → upright 8-bit pictures.

reading.py  one file to one picture
kinds.py    which kind of file some bytes are
exif.py     which way up a picture is
parts.py    a file without its notes (EXIF, ICC, XMP, text), its size and orientation
tiff.py     the same for TIFF
deep.py     TIFF samples that Pillow has no mode for
pnm.py      PBM, PGM and PPM
samples.py  depth to 8 bits, and transparency to a ground
"""
