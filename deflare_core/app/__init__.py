"""What a person starts: the commands, the page of `deflare view`, notebooks as batch runs, the doctor.

It may import everything; papermill, nbconvert and IPython are imported nowhere else.
"""
