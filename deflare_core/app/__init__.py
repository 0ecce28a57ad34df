"""What a person starts: the commands, notebooks as batch runs, the doctor, the import of weights.

It may import everything; papermill, nbconvert and IPython are imported nowhere else.
"""
