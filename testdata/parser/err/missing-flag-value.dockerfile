FROM --platform a
COPY --from b c d
ADD --link= a b
