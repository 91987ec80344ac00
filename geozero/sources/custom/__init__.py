"""Your own data: class folders, captions, boxes, questions."""
